import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

// Shape letters: T tokens.

@Suite struct `A linear layer` {
    let backend = CPUBackend(threadCount: 2)

    @Test(arguments: [(1, 1, 1), (3, 17, 5), (33, 20, 40)], [false, true])
    func `has the gradients that differences show`(size: (tokens: Int, input: Int, output: Int), hasBias: Bool) throws {
        let weight = parameter("weight", size.output, size.input)
        let bias = hasBias ? parameter("bias", size.output) : nil
        let check = try LayerCheck(backend, [weight] + (bias.map { [$0] } ?? []))
        let layer = Linear(weight: weight, bias: bias)
        try check.expect("linear", inputs: [try backend.allocator.random(Shape(size.tokens, size.input), seed: 2)]) {
            [try layer($1[0], on: $0)]
        }
    }

    @Test func `trains its weights on a constant input`() throws {
        let weight = parameter("weight", 4, 6)
        let placed = try Placed([weight], backend)
        let tape = Tape(backend: backend)
        let x = try backend.allocator.random(Shape(5, 6), seed: 2)
        let y = try Linear(weight: weight)(.constant(x), on: tape)
        try tape.addRoot(y, seed: 1)
        try tape.backward()
        let sums = (0..<6).map { column in (0..<5).reduce(0) { $0 + x.doubles[$1 * 6 + column] } }
        let gradient = try placed.gradients()["weight"] ?? []
        expectClose(gradient, (0..<4).flatMap { _ in sums }, within: 1e-5, "weight gradient")
    }

    @Test func `answers in the type asked for`() throws {
        let weight = parameter("weight", 8, 16)
        _ = try Placed([weight], backend, precision: .bf16)
        let tape = Tape(backend: backend, isRecording: false)
        let x = try backend.allocator.random(Shape(3, 16), .bf16, seed: 1)
        #expect(try Linear(weight: weight)(.constant(x), on: tape).dtype == .bf16)
        #expect(try Linear(weight: weight)(.constant(x), on: tape, outputType: .f32).dtype == .f32)
    }
}
