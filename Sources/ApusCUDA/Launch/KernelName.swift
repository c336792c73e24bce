/// The name of a kernel, at most 64 bytes of ASCII, held inline.
///
/// Every launch makes one, often by interpolation, and a string of that length would cost an allocation and its hash.
struct KernelName: Sendable {
    private var words = [8 of UInt64](repeating: 0)
    private var count = 0

    init(_ text: String) { append(text) }

    @inline(__always)
    private mutating func append(_ text: String) {
        let start = count
        var text = text
        let added = text.withUTF8 { bytes in
            precondition(start + bytes.count <= 64, "a kernel's name is short")
            withUnsafeMutableBytes(of: &words) { target in
                for place in bytes.indices { target[start + place] = bytes[place] }
            }
            return bytes.count
        }
        count += added
    }
}

extension KernelName: Hashable {
    static func == (left: KernelName, right: KernelName) -> Bool {
        guard left.count == right.count else { return false }
        for place in left.words.indices where left.words[place] != right.words[place] { return false }
        return true
    }

    func hash(into hasher: inout Hasher) {
        var sum = UInt64(count)
        for place in words.indices { sum = (sum ^ words[place]) &* 0x9e37_79b9_7f4a_7c15 }
        hasher.combine(sum)
    }
}

extension KernelName: ExpressibleByStringInterpolation {
    struct StringInterpolation: StringInterpolationProtocol {
        fileprivate var name = KernelName("")

        init(literalCapacity: Int, interpolationCount: Int) {}

        mutating func appendLiteral(_ text: String) { name.append(text) }
        mutating func appendInterpolation(_ text: String) { name.append(text) }
        mutating func appendInterpolation(_ number: Int) { name.append("\(number)") }
    }

    init(stringLiteral text: String) { self.init(text) }
    init(stringInterpolation: StringInterpolation) { self = stringInterpolation.name }
}

extension KernelName: CustomStringConvertible {
    var description: String {
        withUnsafeBytes(of: words) { String(decoding: $0.prefix(count), as: UTF8.self) }
    }
}
