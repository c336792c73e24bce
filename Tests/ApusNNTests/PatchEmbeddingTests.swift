import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

// Shape letters: T tokens, P pixel values of a patch, D model width.

@Suite struct `An embedding of patches` {
    let backend = CPUBackend(threadCount: 2)
    let weight = parameter("weight", 6, 4)
    let bias = parameter("bias", 6)
    let positions = parameter("positions", 3, 6)
    /// Two images of a class token and two patches of four pixels.
    let pixels = [
        256, 256, 256, 256, 0, 255, 17, 128, 3, 3, 200, 90,
        256, 256, 256, 256, 1, 2, 250, 4, 255, 255, 0, 0,
    ]

    private var layer: PatchEmbedding {
        PatchEmbedding(projection: Linear(weight: weight, bias: bias), positionTable: positions)
    }

    @Test func `is a linear map of brightness plus the vector of a place`() throws {
        let placed = try Placed([weight, bias, positions], backend)
        let layout = try TokenLayout.sequences([3, 3], backend: backend)
        let context = ForwardContext(tape: Tape(backend: backend, isRecording: false), layout: layout)
        let y = try layer(try backend.allocator.integers(pixels), context)
        #expect(y.shape == Shape(6, 6) && placed.store.parameters.count == 3)
        let (matrix, offset) = (try weight.acquire(on: .cpu).doubles, try bias.acquire(on: .cpu).doubles)
        let places = try positions.acquire(on: .cpu).doubles
        var expected: [Double] = []
        for token in 0..<6 {
            for column in 0..<6 {
                var sum = offset[column] + places[token % 3 * 6 + column]
                for place in 0..<4 {
                    let pixel = pixels[token * 4 + place]
                    // Black is -1 and white 1; what is no pixel adds nothing.
                    let value = pixel == 256 ? 0 : (Double(pixel) - 127.5) / 127.5
                    sum += matrix[column * 4 + place] * value
                }
                expected.append(sum)
            }
        }
        expectClose(y.tensor, expected, "patches")
    }

    @Test func `has the gradients that differences show`() throws {
        let check = try LayerCheck(backend, [weight, bias, positions])
        let layout = try TokenLayout.sequences([3, 3], backend: backend)
        let tokens = try backend.allocator.integers(pixels)
        try check.expect("patches", inputs: []) { tape, _ in
            [try layer(tokens, ForwardContext(tape: tape, layout: layout))]
        }
    }
}
