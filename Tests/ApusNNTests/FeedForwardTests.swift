import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

// Shape letters: T tokens, D model width, F hidden width.

@Suite struct `A feed-forward layer` {
    let backend = CPUBackend(threadCount: 2)

    @Test(arguments: Activation.allCases, [(1, 4, 6), (17, 12, 33)])
    func `has the gradients that differences show`(activation: Activation, size: (tokens: Int, width: Int, hidden: Int))
        throws
    {
        let input = parameter("input", activation.inputsPerOutput * size.hidden, size.width)
        let output = parameter("output", size.width, size.hidden)
        var check = try LayerCheck(backend, [input, output])
        if activation == .relu {
            // A small step crosses few kinks; rounding then weighs more.
            check.check.step = 5e-4
            check.check.tolerance = 2e-2
        }
        let layer = FeedForward(input: input, output: output, activation: activation)
        try check.expect(
            "\(activation)", inputs: [try backend.allocator.random(Shape(size.tokens, size.width), seed: 2)]
        ) {
            [try layer($1[0], on: $0)]
        }
    }
}
