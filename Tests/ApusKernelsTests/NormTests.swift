import ApusKernels
import ApusTensor
import ApusTestSupport
import Testing

// Shape letters: T tokens, H heads, D width.

@Suite struct `Norms` {
    /// Tokens, heads, width.
    static let sizes = [(1, 1, 5), (3, 1, 17), (17, 1, 257), (100, 1, 64), (600, 1, 33), (5, 4, 16), (300, 3, 20)]
    let backend = CPUBackend(threadCount: 2)

    /// (T, H, D) inside rows that are wider, or (T, D) where there is one head.
    private func rows(_ size: (tokens: Int, heads: Int, width: Int), _ dtype: DType, seed: UInt64) throws -> Tensor {
        let whole = try backend.random(size.tokens, size.heads * size.width + 6, dtype: dtype, seed: seed, scale: 2)
        let part = whole.columns(2..<2 + size.heads * size.width)
        return size.heads == 1 ? part : part.reshaped(size.tokens, size.heads, size.width)
    }

    @Test(arguments: sizes, floatingTypes)
    func `by root mean square equal their definition, forward and backward`(size: (Int, Int, Int), dtype: DType) throws
    {
        let (tokens, heads, width) = size
        let reference = NormReference(width: width, epsilon: 1e-5, isCentred: false)
        let x = try rows(size, dtype, seed: 1)
        let weight = try backend.random(width, dtype: dtype, seed: 2)
        let y = try rows(size, dtype, seed: 3)
        let rstd = try backend.empty(Shape(tokens * heads), .f32)
        try backend.rmsNorm(x, weight: weight, epsilon: 1e-5, into: y, rstd: rstd)
        expectClose(y, reference.forward(x.doubles, weight: weight.doubles), "\(size) \(dtype)")
        expectClose(rstd, reference.statistics(x.doubles).map(\.rstd), "rstd of \(size)")

        let dy = try rows(size, dtype, seed: 4)
        let expected = reference.backward(dy.doubles, x: x.doubles, weight: weight.doubles)
        for adds in [false, true] {
            let dx = try rows(size, dtype, seed: 5)
            let before = dx.doubles
            let dweight = try backend.random(width, seed: 6)
            let weightBefore = dweight.doubles
            try backend.rmsNormBackward(
                dy, x: x, weight: weight, rstd: rstd, into: dx, adds: adds, weightGradient: dweight)
            expectClose(
                dx, zip(expected.dx, before).map { $0 + (adds ? $1 : 0) }, "dx of \(size) \(dtype), adds \(adds)")
            expectClose(
                dweight, zip(expected.dweight, weightBefore).map(+),
                "weight gradient of \(size) \(dtype)")
        }
        try backend.rmsNormBackward(dy, x: x, weight: weight, rstd: rstd, into: dy, adds: false, weightGradient: nil)
        expectClose(dy, expected.dx, "dx of \(size) \(dtype) in place")
    }

    @Test(arguments: sizes, floatingTypes)
    func `of layers equal their definition, forward and backward`(size: (Int, Int, Int), dtype: DType) throws {
        let (tokens, heads, width) = size
        let reference = NormReference(width: width, epsilon: 1e-5, isCentred: true)
        let x = try rows(size, dtype, seed: 1)
        let weight = try backend.random(width, dtype: dtype, seed: 2)
        let bias = try backend.random(width, dtype: dtype, seed: 7)
        let y = try rows(size, dtype, seed: 3)
        let rstd = try backend.empty(Shape(tokens * heads), .f32)
        let mean = try backend.empty(Shape(tokens * heads), .f32)
        try backend.layerNorm(x, weight: weight, bias: nil, epsilon: 1e-5, into: y, mean: nil, rstd: nil)
        expectClose(y, reference.forward(x.doubles, weight: weight.doubles), "\(size) \(dtype) without bias")
        try backend.layerNorm(x, weight: weight, bias: bias, epsilon: 1e-5, into: y, mean: mean, rstd: rstd)
        expectClose(y, reference.forward(x.doubles, weight: weight.doubles, bias: bias.doubles), "\(size) \(dtype)")
        expectClose(mean, reference.statistics(x.doubles).map(\.mean), "mean of \(size)")

        let dy = try rows(size, dtype, seed: 4)
        let expected = reference.backward(dy.doubles, x: x.doubles, weight: weight.doubles)
        for adds in [false, true] {
            let dx = try rows(size, dtype, seed: 5)
            let before = dx.doubles
            let (dweight, dbias) = (try backend.random(width, seed: 6), try backend.random(width, seed: 8))
            let (weightBefore, biasBefore) = (dweight.doubles, dbias.doubles)
            try backend.layerNormBackward(
                dy, x: x, weight: weight, mean: mean, rstd: rstd, into: dx, adds: adds, weightGradient: dweight,
                biasGradient: dbias)
            expectClose(
                dx, zip(expected.dx, before).map { $0 + (adds ? $1 : 0) }, "dx of \(size) \(dtype), adds \(adds)")
            expectClose(dweight, zip(expected.dweight, weightBefore).map(+), "weight gradient of \(size) \(dtype)")
            expectClose(dbias, zip(expected.dbias, biasBefore).map(+), "bias gradient of \(size) \(dtype)")
        }
    }

    @Test(arguments: [(1, 1), (17, 33), (100, 257)], floatingTypes)
    func `add a residual in the same pass`(size: (Int, Int), dtype: DType) throws {
        let (tokens, width) = size
        let x = try backend.random(tokens, width, dtype: dtype, seed: 1)
        let residual = try backend.random(tokens, width, dtype: dtype, seed: 2, rowPadding: 3)
        let weight = try backend.random(width, dtype: dtype, seed: 3)
        let sum = try backend.sentinel(tokens, width, dtype: dtype)
        let y = try backend.sentinel(tokens, width, dtype: dtype)
        let rstd = try backend.empty(Shape(tokens), .f32)
        try backend.addRMSNorm(x, residual: residual, weight: weight, epsilon: 1e-6, sum: sum, into: y, rstd: rstd)
        expectClose(sum, zip(x.doubles, residual.doubles).map(+), "sum")
        let reference = NormReference(width: width, epsilon: 1e-6, isCentred: false)
        expectClose(y, reference.forward(sum.doubles, weight: weight.doubles), "norm of the stored sum")
        expectClose(rstd, reference.statistics(sum.doubles).map(\.rstd), "rstd")
        let copy = try backend.duplicate(x)
        try backend.addRMSNorm(copy, residual: residual, weight: weight, epsilon: 1e-6, sum: copy, into: y, rstd: nil)
        expectSameBits(copy, sum, "a sum in place of x")
    }

    @Test func `accumulate a bf16 weight gradient with one rounding`() throws {
        let (x, dy) = (
            try backend.random(900, 20, dtype: .bf16, seed: 1), try backend.random(900, 20, dtype: .bf16, seed: 2)
        )
        let weight = try backend.random(20, dtype: .bf16, seed: 3)
        let rstd = try backend.empty(Shape(900), .f32)
        try backend.rmsNorm(x, weight: weight, epsilon: 1e-5, into: try backend.empty(x.shape, .bf16), rstd: rstd)
        let gradient = try backend.random(20, dtype: .bf16, seed: 4)
        let before = gradient.doubles
        try backend.rmsNormBackward(
            dy, x: x, weight: weight, rstd: rstd, into: try backend.empty(x.shape, .bf16), adds: false,
            weightGradient: gradient)
        let reference = NormReference(width: 20, epsilon: 1e-5, isCentred: false)
        let expected = reference.backward(dy.doubles, x: x.doubles, weight: weight.doubles).dweight
        // One rounding to 8 bits.
        expectClose(gradient, zip(expected, before).map(+), within: 4e-3, "bf16 weight gradient")
    }

    @Test(arguments: floatingTypes)
    func `do not depend on the number of threads`(dtype: DType) throws {
        try expectSameBitsForAnyThreadCount("norm") { backend in
            let (x, dy) = (
                try backend.random(1500, 65, dtype: dtype, seed: 1), try backend.random(1500, 65, dtype: dtype, seed: 2)
            )
            let weight = try backend.random(65, dtype: dtype, seed: 3)
            let (y, dx) = (try backend.empty(x.shape, dtype), try backend.empty(x.shape, dtype))
            let (mean, rstd) = (try backend.empty(Shape(1500), .f32), try backend.empty(Shape(1500), .f32))
            let (dweight, dbias) = (try backend.zeros(Shape(65), .f32), try backend.zeros(Shape(65), .f32))
            try backend.layerNorm(x, weight: weight, bias: weight, epsilon: 1e-5, into: y, mean: mean, rstd: rstd)
            try backend.layerNormBackward(
                dy, x: x, weight: weight, mean: mean, rstd: rstd, into: dx, adds: false, weightGradient: dweight,
                biasGradient: dbias)
            return [y, dx, dweight, dbias, mean, rstd]
        }
    }
}
