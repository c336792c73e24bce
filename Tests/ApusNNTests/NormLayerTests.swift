import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

// Shape letters: T tokens, D model width.

@Suite struct `A norm layer` {
    let backend = CPUBackend(threadCount: 2)

    private func layer(_ width: Int, isLayerNorm: Bool) throws -> (Norm, LayerCheck) {
        let weight = parameter("weight", width, deviation: 1)
        let bias = isLayerNorm ? parameter("bias", width) : nil
        let check = try LayerCheck(backend, [weight] + (bias.map { [$0] } ?? []))
        return (Norm(weight: weight, bias: bias, epsilon: 1e-5), check)
    }

    @Test(arguments: [(1, 5), (17, 33), (40, 64)], [false, true])
    func `has the gradients that differences show`(size: (tokens: Int, width: Int), isLayerNorm: Bool) throws {
        let (norm, check) = try layer(size.width, isLayerNorm: isLayerNorm)
        let x = try backend.allocator.random(Shape(size.tokens, size.width), seed: 2, scale: 2)
        try check.expect("norm", inputs: [x]) { [try norm($1[0], on: $0)] }
    }

    @Test(arguments: [[0, 1], [0], [1]], [false, true])
    func `adds a residual whichever of its outputs are used`(outputs: [Int], isLayerNorm: Bool) throws {
        let (norm, check) = try layer(20, isLayerNorm: isLayerNorm)
        let inputs = [
            try backend.allocator.random(Shape(9, 20), seed: 2, scale: 2),
            try backend.allocator.random(Shape(9, 20), seed: 3),
        ]
        try check.expect("residual norm, outputs \(outputs)", inputs: inputs, usingOutputs: outputs) { tape, x in
            let result = try norm.addingResidual(x[0], x[1], on: tape)
            return [result.sum, result.normalized]
        }
    }

    @Test(arguments: [false, true])
    func `gives in one pass what addition and norm give in two`(isLayerNorm: Bool) throws {
        let (norm, _) = try layer(33, isLayerNorm: isLayerNorm)
        let tape = Tape(backend: backend, isRecording: false)
        let x = Variable.constant(try backend.allocator.random(Shape(7, 33), seed: 2))
        let y = Variable.constant(try backend.allocator.random(Shape(7, 33), seed: 3))
        let fused = try norm.addingResidual(x, y, on: tape)
        let sum = try tape.add(x, y)
        expectSameBits(fused.sum.tensor, sum.tensor, "sum")
        expectClose(fused.normalized.tensor, try norm(sum, on: tape).tensor.doubles, "norm")
    }
}
