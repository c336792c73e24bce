import ApusCollectives
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusParallel

// Shape letters: T tokens, D model width, F hidden width, N ranks.

@Suite struct DividedPartsTests {
    /// Column- then row-parallel with both biases, against one rank.
    @Test(arguments: [1, 2, 4], [false, true])
    func `two linear layers`(ranks: Int, dividesTokens: Bool) throws {
        let (tokens, width, hidden) = (8, 6, 12)
        @Sendable func run(_ group: (any Collective)?) throws -> (y: [Float], gradients: [String: GradientPiece]) {
            let backend = CPUBackend(threadCount: 1)
            func make(_ name: String, _ shape: Shape, cut: Int?) -> Parameter {
                let shard = group.flatMap { group in
                    cut.map { dimension in
                        let share = shape[dimension] / group.size
                        return Shard(dimension: dimension, range: group.rank * share..<(group.rank + 1) * share)
                    }
                }
                return Parameter(
                    name, shape, initializer: .normal(deviation: 0.5), shard: shard,
                    sharing: Sharing(
                        overTensorRanks: cut != nil || group == nil ? .divided : dividesTokens ? .partial : .same))
            }
            let parameters = [
                make("in", Shape(hidden, width), cut: 0), make("in bias", Shape(hidden), cut: 0),
                make("out", Shape(width, hidden), cut: 1), make("out bias", Shape(width), cut: nil),
            ]
            let store = try ParameterStore(parameters, backend: backend, precision: .f32, isTrained: true)
            try store.assignFullValues(backend)
            let x = try backend.allocator.random(Shape(tokens, width), seed: 4)
            let seeds = try backend.allocator.random(Shape(tokens, width), seed: 5)
            let tape = Tape(backend: backend)
            let input = Linear(weight: parameters[0], bias: parameters[1])
            let y: Variable
            var own = 0..<tokens
            if let group {
                let boundary = DividedLayerBoundary(group: group, dividesTokens: dividesTokens, layer: 1)
                if dividesTokens { own = tokens / ranks * group.rank..<tokens / ranks * (group.rank + 1) }
                let h = try ColumnParallelLinear(local: input, boundary: boundary)(tape.leaf(x[own]), on: tape)
                y = try RowParallelLinear(weight: parameters[2], bias: parameters[3], boundary: boundary)(h, on: tape)
            } else {
                let h = try input(tape.leaf(x), on: tape)
                y = try Linear(weight: parameters[2], bias: parameters[3])(h, on: tape)
            }
            try tape.addRoot(y, seed: seeds[own])
            try tape.backward()
            return (
                y.tensor.floats(),
                try Dictionary(uniqueKeysWithValues: parameters.map { ($0.name, try GradientPiece($0)) })
            )
        }
        let whole = try run(nil)
        let found = try InProcess.run(ranks: ranks) { try run($0) }
        let outputs = dividesTokens ? [found.flatMap(\.y)] : found.map(\.y)
        for y in outputs { expectClose(y, whole.y.map(Double.init), within: 1e-5, "output") }
        for (name, gradient) in whole.gradients {
            let pieces = found.compactMap { $0.gradients[name] }
            expectClose(gradient.values, joined(pieces, name), within: 1e-5, name)
        }
    }

    /// Ranks whose columns differ by orders of magnitude, so that no rank's own statistic is near the row's.
    @Test(arguments: [2, 4], [DType.f32, .bf16])
    func `norm over divided columns`(ranks: Int, dtype: DType) throws {
        let (tokens, width) = (5, 8)
        let x = (0..<tokens * width * ranks).map { index in
            randomValues(1, seed: UInt64(index), scale: index / 2 % ranks == 0 ? 20 : 0.05)[0]
        }
        let dy = randomValues(x.count, seed: 3)
        let weight = randomValues(width * ranks, seed: 4)
        // Rows are laid out by columns of ranks.
        @Sendable func columns(_ values: [Float], _ range: Range<Int>) -> [Float] {
            (0..<values.count / (width * ranks)).flatMap { row in range.map { values[row * width * ranks + $0] } }
        }
        @Sendable func whole() throws -> (y: [Float], dx: [Float], dw: [Float]) {
            let backend: any Backend = CPUBackend(threadCount: 1)
            let allocator = backend.allocator
            let shape = Shape(tokens, width * ranks)
            let (source, scale) = (
                try allocator.floating(x, shape, dtype), try allocator.floating(weight, Shape(width * ranks), dtype)
            )
            let y = try backend.empty(shape, dtype)
            let rstd = try backend.empty(Shape(tokens), .f32)
            try backend.rmsNorm(source, weight: scale, epsilon: 1e-3, into: y, rstd: rstd)
            let gradient = try allocator.floating(dy, shape, dtype)
            let dw = try backend.zeros(Shape(width * ranks), .f32)
            try backend.rmsNormBackward(
                gradient, x: source, weight: scale, rstd: rstd, into: gradient, adds: false, weightGradient: dw)
            return (y.floats(), gradient.floats(), dw.floats())
        }
        let expected = try whole()
        let found = try InProcess.run(ranks: ranks) { group in
            let backend: any Backend = CPUBackend(threadCount: 1)
            let own = group.rank * width..<(group.rank + 1) * width
            let shape = Shape(tokens, width)
            func tensor(_ values: [Float]) throws -> Tensor {
                try backend.allocator.floating(
                    columns(values, own), values.count == weight.count ? Shape(width) : shape, dtype,
                    rowPadding: values.count == weight.count ? 0 : 8)
            }
            let norm = TensorParallelNorm(group: group, layer: 0)
            let (source, scale) = (try tensor(x), try tensor(weight))
            let y = try backend.empty(shape, dtype)
            let rstd = try norm.forward(
                [(x: source, weight: scale, y: y)], epsilon: 1e-3, on: Tape(backend: backend, isRecording: false))
            let gradient = try tensor(dy)
            let dw = try backend.zeros(Shape(width), .f32)
            try norm.backward(
                [(dy: gradient, x: source, weight: scale, rstd: rstd[0], weightGradient: dw)], epsilon: 1e-3, backend)
            return [y.floats(), gradient.floats(), dw.floats()]
        }
        let tolerance = dtype == .f32 ? 1e-5 : 1e-2
        for rank in 0..<ranks {
            let own = rank * width..<(rank + 1) * width
            for (values, reference) in zip(found[rank], [expected.y, expected.dx, expected.dw]) {
                expectClose(values, columns(reference, own).map(Double.init), within: tolerance, "rank \(rank)")
            }
        }
    }
}
