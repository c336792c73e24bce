import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

// Shape letters: D model width, C channels, W taps.

@Suite struct `A gated short convolution` {
    static let (width, channels, taps) = (5, 4, 3)
    let backend = CPUBackend(threadCount: 2)

    private func layer() -> (ShortConvolution, [Parameter]) {
        let projection = parameter("projection", 3 * Self.channels, Self.width)
        let taps = parameter("taps", Self.taps, Self.channels)
        let output = parameter("output", Self.width, Self.channels)
        let layer = ShortConvolution(
            layer: 0, projection: Linear(weight: projection), taps: taps, output: Linear(weight: output))
        return (layer, [projection, taps, output])
    }

    /// A sequence of five tokens, and one of two documents, of four and five.
    private func layout() throws -> TokenLayout {
        let plain = try TokenLayout.sequences([5, 9], backend: backend)
        return plain.at(
            firstGlobalToken: 0, positions: try backend.allocator.integers([0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 1, 2, 3, 4]))
    }

    @Test func `has the gradients that differences show`() throws {
        let (layer, parameters) = layer()
        let check = try LayerCheck(backend, parameters)
        let layout = try layout()
        try check.expect(
            "short convolution", inputs: [try backend.allocator.random(Shape(14, Self.width), seed: 2)]
        ) { [try layer($1[0], ForwardContext(tape: $0, layout: layout))] }
    }

    @Test func `reads as many tokens as it has taps, and none of other sequences or documents`() throws {
        let (layer, parameters) = layer()
        _ = try Placed(parameters, backend)
        let layout = try layout()
        func run(changing token: Int?) throws -> [Float] {
            var values = randomValues(14 * Self.width, seed: 2)
            if let token { for column in 0..<Self.width { values[token * Self.width + column] += 1 } }
            let context = ForwardContext(tape: Tape(backend: backend, isRecording: false), layout: layout)
            return try layer(.constant(try backend.allocator.floating(values, Shape(14, Self.width))), context).tensor
                .floats()
        }
        let before = try run(changing: nil)
        for (token, reach) in [(0, 0..<3), (3, 3..<5), (5, 5..<8), (8, 8..<9), (9, 9..<12), (13, 13..<14)] {
            let after = try run(changing: token)
            let moved = (0..<14).filter { row in
                (row * Self.width..<(row + 1) * Self.width).contains { before[$0] != after[$0] }
            }
            #expect(moved == Array(reach), "token \(token)")
        }
    }
}
