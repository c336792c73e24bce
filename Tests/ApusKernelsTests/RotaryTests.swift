import ApusKernels
import ApusTensor
import ApusTestSupport
import Glibc
import Testing

// Shape letters: T tokens, H heads, dh head width.

@Suite struct `Rotary positions` {
    let backend = CPUBackend(threadCount: 2)

    @Test(arguments: [(1, 1, 2), (3, 2, 16), (100, 3, 20), (257, 4, 64)], floatingTypes)
    func `rotate pairs half a head apart, and back`(size: (Int, Int, Int), dtype: DType) throws {
        let (tokens, heads, width) = size
        let table = try backend.rotaryTable(positions: 300, headWidth: width, theta: 10_000)
        var generator = SeededGenerator(seed: 5)
        let places = (0..<tokens).map { _ in Int.random(in: 0..<300, using: &generator) }
        let positions = try backend.allocator.integers(places)
        let x = try backend.random(tokens, heads * width + 4, dtype: dtype, seed: 1)
            .columns(1..<1 + heads * width).reshaped(tokens, heads, width)
        let y = try backend.empty(x.shape, dtype)
        try backend.rotate(x, positions: positions, table: table, inverse: false, into: y)
        let input = x.doubles
        let expected = input.indices.map { index -> Double in
            let (token, column) = (index / (heads * width), index % width)
            let pair = column % (width / 2)
            let angle = Double(places[token]) * pow(10_000, -2 * Double(pair) / Double(width))
            return column < width / 2
                ? input[index] * cos(angle) - input[index + width / 2] * sin(angle)
                : input[index] * cos(angle) + input[index - width / 2] * sin(angle)
        }
        expectClose(y, expected, "rotated \(size) \(dtype)")
        let before = x.doubles
        try backend.rotate(y, positions: positions, table: table, inverse: true, into: y)
        expectClose(y, before, "rotated back \(size) \(dtype)")
        try backend.rotate(x, positions: positions, table: table, inverse: false, into: x)
        expectClose(x, expected, "rotated in place \(size) \(dtype)")
    }

    /// Of heads wider than the table the end is turned; one head may serve all of another tensor's.
    @Test(arguments: RotaryPairing.allCases, floatingTypes)
    func `turn the end of each head`(pairing: RotaryPairing, dtype: DType) throws {
        let (tokens, heads, width, turned) = (37, 3, 24, 10)
        let table = try backend.rotaryTable(positions: 40, headWidth: turned, theta: 100).pairing(pairing)
        let positions = try backend.allocator.integers(Array(0..<tokens))
        let x = try backend.random(tokens, heads * width, dtype: dtype, seed: 2).reshaped(tokens, heads, width)
        let y = try backend.random(tokens, heads * width, dtype: dtype, seed: 3).reshaped(tokens, heads, width)
        let (input, before) = (x.doubles, y.doubles)
        func expected(_ part: (Int) -> [Double]) -> [Double] {
            (0..<tokens * heads).flatMap { head -> [Double] in
                let source = part(head)
                var result = Array(before[head * width..<(head + 1) * width - turned]) + source
                for pair in 0..<turned / 2 {
                    let angle = Double(head / heads) * pow(100, -2 * Double(pair) / Double(turned))
                    let (i, j) = pairing == .halves ? (pair, pair + turned / 2) : (2 * pair, 2 * pair + 1)
                    result[width - turned + i] = source[i] * cos(angle) - source[j] * sin(angle)
                    result[width - turned + j] = source[j] * cos(angle) + source[i] * sin(angle)
                }
                return result
            }
        }
        try backend.rotate(x, positions: positions, table: table, inverse: false, into: y)
        expectClose(
            y, expected { Array(input[($0 + 1) * width - turned..<($0 + 1) * width]) }, "\(pairing) \(dtype)")
        // A strided one, as the rotary part of a projection is.
        let one = try backend.random(tokens, 7 + turned, dtype: dtype, seed: 4).columns(7..<7 + turned)
        let shared = one.doubles
        try backend.rotate(
            one.reshaped(tokens, 1, turned), positions: positions, table: table, inverse: false, into: y)
        expectClose(
            y, expected { Array(shared[$0 / heads * turned..<($0 / heads + 1) * turned]) },
            "one head for all, \(pairing) \(dtype)")
    }

    @Test func `have a table as exact as its type`() throws {
        let table = try backend.rotaryTable(positions: 5000, headWidth: 32, theta: 1e6)
        #expect(table.positionCount == 5000)
        let angles = (0..<5000).flatMap { position in (0..<16).map { Double(position) * pow(1e6, -Double($0) / 16) } }
        expectClose(table.cosines, angles.map { cos($0) }, within: 1e-7, "cosines")
        expectClose(table.sines, angles.map { sin($0) }, within: 1e-7, "sines")
    }
}
