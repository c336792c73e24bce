import Glibc

/// Byte strings by their beginnings, for finding the longest one that stands at a place.
struct ByteTrie: Sendable {
    /// For each node the range of its edges, and the string that ends there, or -1.
    private var nodes: [(edges: Range<Int32>, index: Int32)] = []
    private var edgeBytes: [UInt8] = []
    private var edgeNodes: [Int32] = []
    private var beginnings = [Bool](repeating: false, count: 256)
    /// The only first byte, if there is but one.
    private var onlyBeginning: UInt8?

    /// - Parameter strings: of equal ones the last counts; empty ones are left out.
    init(_ strings: [[UInt8]]) {
        var children: [[(byte: UInt8, node: Int32)]] = [[]]
        var ends: [Int32] = [-1]
        for (index, string) in strings.enumerated() {
            guard let first = string.first else { continue }
            beginnings[Int(first)] = true
            var node = 0
            for byte in string {
                if let edge = children[node].first(where: { $0.byte == byte }) {
                    node = Int(edge.node)
                } else {
                    children[node].append((byte, Int32(children.count)))
                    node = children.count
                    children.append([])
                    ends.append(-1)
                }
            }
            ends[node] = Int32(index)
        }
        if beginnings.filter({ $0 }).count == 1 { onlyBeginning = beginnings.firstIndex(of: true).map(UInt8.init) }
        for (edges, end) in zip(children, ends) {
            let start = Int32(edgeBytes.count)
            edgeBytes += edges.map(\.byte)
            edgeNodes += edges.map(\.node)
            nodes.append((start..<Int32(edgeBytes.count), end))
        }
    }

    /// Where the first byte of a string stands next; `end` if nowhere.
    func nextBeginning(_ text: UnsafePointer<UInt8>, _ place: Int, _ end: Int) -> Int {
        if let onlyBeginning {
            guard let found = memchr(text + place, Int32(onlyBeginning), end - place) else { return end }
            return UnsafeRawPointer(found) - UnsafeRawPointer(text)
        }
        return beginnings.withUnsafeBufferPointer { beginnings in
            var place = place
            while place < end, !beginnings[Int(text[place])] { place &+= 1 }
            return place
        }
    }

    /// The longest string at `place`: its index and its length.
    func longest(_ text: UnsafePointer<UInt8>, _ place: Int, _ end: Int) -> (index: Int, length: Int)? {
        var node = 0
        var found: (index: Int, length: Int)?
        var next = place
        while next < end {
            let byte = text[next]
            guard let edge = nodes[node].edges.first(where: { edgeBytes[Int($0)] == byte }) else { break }
            node = Int(edgeNodes[Int(edge)])
            next += 1
            if nodes[node].index >= 0 { found = (Int(nodes[node].index), next - place) }
        }
        return found
    }
}
