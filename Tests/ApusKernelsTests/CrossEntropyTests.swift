import ApusKernels
import ApusTensor
import ApusTestSupport
import Glibc
import Testing

// Shape letters: T tokens, V vocabulary.

@Suite struct `Cross-entropy` {
    let backend = CPUBackend(threadCount: 2)

    @Test(
        arguments: [(1, 1), (3, 17), (17, 100), (100, 257), (40, 1000)],
        [(DType.f32, DType.f32), (.bf16, .bf16), (.f32, .bf16)])
    func `equals its definition, forward and backward`(
        size: (tokens: Int, vocabulary: Int), types: (logits: DType, gradient: DType)
    ) throws {
        let (tokens, vocabulary) = size
        let logits = try backend.random(tokens, vocabulary, dtype: types.logits, seed: 1, scale: 5, rowPadding: 2)
        var generator = SeededGenerator(seed: 2)
        let wanted = (0..<tokens).map { $0 % 4 == 3 ? -100 : Int.random(in: 0..<vocabulary, using: &generator) }
        let targets = try backend.allocator.integers(wanted)
        let (loss, sums) = (try backend.sentinel(tokens), try backend.sentinel(tokens))
        try backend.crossEntropy(logits, targets: targets, loss: loss, logSumExp: sums)
        let values = logits.doubles
        let normalizers = (0..<tokens).map { row in
            log((0..<vocabulary).reduce(0) { $0 + exp(values[row * vocabulary + $1]) })
        }
        if vocabulary > 1 {
            expectClose(
                loss, (0..<tokens).map { wanted[$0] < 0 ? 0 : normalizers[$0] - values[$0 * vocabulary + wanted[$0]] },
                "loss")
        }
        let scale = try backend.allocator.tensor([Float(0.25)], Shape(1))
        let gradient = try backend.sentinel(tokens, vocabulary, dtype: types.gradient, rowPadding: 1)
        try backend.crossEntropyBackward(logits, targets: targets, logSumExp: sums, scale: scale, into: gradient)
        let expected = values.indices.map { index -> Double in
            let (row, column) = (index / vocabulary, index % vocabulary)
            guard wanted[row] >= 0 else { return 0 }
            return 0.25 * (exp(values[index] - normalizers[row]) - (column == wanted[row] ? 1 : 0))
        }
        if vocabulary > 1 { expectClose(gradient, expected, "gradient") }
        let (slopes, losses) = (gradient.floats(), loss.floats())
        for row in 0..<tokens where wanted[row] < 0 {
            #expect(slopes[row * vocabulary..<(row + 1) * vocabulary].allSatisfy { $0 == 0 })
            #expect(losses[row] == 0)
        }
        if types.logits == types.gradient {
            try backend.crossEntropyBackward(logits, targets: targets, logSumExp: sums, scale: scale, into: logits)
            expectSameBits(logits, gradient, "gradient in place")
        }
    }

    @Test func `does not overflow, and is the logarithm of the vocabulary for equal logits`() throws {
        let logits = try backend.allocator.tensor(
            Array(repeating: Float(3e4), count: 50) + Array(repeating: Float(-3e4), count: 50), Shape(2, 50))
        let (loss, sums) = (try backend.sentinel(2), try backend.sentinel(2))
        try backend.crossEntropy(
            logits, targets: try backend.allocator.integers([7, 9]), loss: loss, logSumExp: sums)
        // At 30000 an f32 logit is exact to 0.002.
        expectClose(loss, [log(50), log(50)], within: 1e-3, "loss of equal logits")
    }

    @Test func `does not depend on the number of threads`() throws {
        try expectSameBitsForAnyThreadCount("cross-entropy") { backend in
            let logits = try backend.random(150, 333, seed: 1, scale: 4)
            let targets = try backend.allocator.integers((0..<150).map { $0 * 2 })
            let (loss, sums) = (try backend.empty(Shape(150), .f32), try backend.empty(Shape(150), .f32))
            let gradient = try backend.empty(logits.shape, .f32)
            try backend.crossEntropy(logits, targets: targets, loss: loss, logSumExp: sums)
            try backend.crossEntropyBackward(
                logits, targets: targets, logSumExp: sums, scale: try backend.allocator.tensor([Float(1)], Shape(1)),
                into: gradient)
            return [loss, sums, gradient]
        }
    }
}
