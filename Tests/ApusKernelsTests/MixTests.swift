import ApusKernels
import ApusTensor
import ApusTestSupport
import Testing

// Shape letters: T tokens, D model width.

/// Mixing two branches, against its definition in double precision.
@Suite struct MixTests {
    let backend = CPUBackend(threadCount: 2)

    @Test(arguments: [(1, 1), (5, 16), (37, 33), (64, 257)], [DType.f32, .bf16])
    func `mix rows, forward and backward`(_ extents: (tokens: Int, width: Int), _ dtype: DType) throws {
        let (tokens, width) = extents
        let shape = Shape(tokens, width)
        let (a, b, dy) = (
            try backend.allocator.random(shape, dtype, seed: 1), try backend.allocator.random(shape, dtype, seed: 2),
            try backend.allocator.random(shape, dtype, seed: 3)
        )
        let weights = try backend.allocator.random(Shape(tokens, 2), .f32, seed: 4)
        let (left, right, slope, factors) = (a.doubles, b.doubles, dy.doubles, weights.doubles)
        let y = try backend.empty(shape, dtype)
        try backend.mixRows(a, b, weights: weights, into: y)
        expectClose(
            y, (0..<shape.count).map { factors[$0 / width * 2] * left[$0] + factors[$0 / width * 2 + 1] * right[$0] },
            "mix")

        let (da, db) = (try backend.empty(shape, dtype), try backend.empty(shape, dtype))
        let dweights = try backend.empty(weights.shape, .f32)
        try backend.mixRowsBackward(dy, a, b, weights: weights, da: da, db: db, dweights: dweights)
        expectClose(da, (0..<shape.count).map { factors[$0 / width * 2] * slope[$0] }, "first branch")
        expectClose(db, (0..<shape.count).map { factors[$0 / width * 2 + 1] * slope[$0] }, "second branch")
        var dots = Array(repeating: 0.0, count: 2 * tokens)
        for place in 0..<shape.count {
            dots[place / width * 2] += left[place] * slope[place]
            dots[place / width * 2 + 1] += right[place] * slope[place]
        }
        expectClose(dweights, dots, "weights")
    }
}
