/// The kernels in the code of a file: what the device is asked for there.
enum KernelNames: Sendable {
    /// Those that the code holds.
    case listed(Set<String>)
    /// Any: a stand-in for code, in tests of what is launched.
    case any

    func contains(_ name: String) -> Bool {
        switch self {
        case .listed(let names): names.contains(name)
        case .any: true
        }
    }

    /// Reads the names from machine code, which is an ELF file with a section `.text.NAME` for each kernel; `nil` when the
    /// bytes are no such file.
    ///
    /// The driver lists a module's functions only since CUDA 12.4, and asking a module for what it has not is an error to
    /// whoever watches the calls.
    init?(of image: [UInt8]) {
        func number(_ place: Int, bytes: Int) -> Int? {
            guard place >= 0, place <= image.count - bytes else { return nil }
            let value = (0..<bytes).reversed().reduce(0) { $0 << 8 | Int(image[place + $1]) }
            // Beyond what any file is, and what sums of places could pass.
            return (0..<1 << 40).contains(value) ? value : nil
        }
        // The header of a 64-bit file: where the sections' headers begin, their size and number, and which names them.
        guard image.starts(with: [0x7F] + Array("ELF".utf8) + [2]), let table = number(40, bytes: 8),
            let size = number(58, bytes: 2), let count = number(60, bytes: 2), let namesAt = number(62, bytes: 2),
            table + count * size <= image.count, let strings = number(table + namesAt * size + 24, bytes: 8)
        else { return nil }
        let prefix = Array(".text.".utf8)
        var names: Set<String> = []
        for section in 0..<count {
            guard let place = number(table + section * size, bytes: 4), strings + place < image.count else {
                return nil
            }
            let name = image[(strings + place)...].prefix { $0 != 0 }
            if name.starts(with: prefix) { names.insert(String(decoding: name.dropFirst(prefix.count), as: UTF8.self)) }
        }
        self = .listed(names)
    }
}
