import ApusKernels
import ApusNN
import ApusTensor

// Shape letters: R routed rows, D model width, F expert width, E experts.

/// The operands of the six products of experts without a gate, in three formulations.
struct BlockSparseBench {
    private let shape: LayerShape
    private let backend: any Backend
    private let topology: BlockTopology
    private let offsets: Tensor
    /// (R, D): input or gradient of the output.
    private let rows: Tensor
    /// (R, F): activations or their gradient, and the same on blocks.
    private let inner: Tensor
    private let values: Tensor
    /// (E, F, D) and (E, D, F).
    private let first: Tensor
    private let second: Tensor
    private let firstGradient: Tensor
    private let secondGradient: Tensor
    /// Results (R, D), (R, F), on blocks, and a dense gradient.
    private let wideResult: Tensor
    private let innerResult: Tensor
    private let valueResult: Tensor
    private let denseGradient: Tensor

    init(_ shape: LayerShape, _ precision: Precision, _ backend: any Backend) throws {
        let (dtype, width, inner) = (precision.modelType, shape.width, shape.expertWidth)
        self.shape = shape
        self.backend = backend
        let bounds = shape.loads().reduce(into: [Int32(0)]) { $0.append(($0.last ?? 0) + Int32($1)) }
        offsets = try backend.tensor(bounds, Shape(bounds.count))
        topology = try backend.blockTopology(
            offsets: offsets, rowBound: shape.rows, blocksPerExpert: inner / shape.blockSize, blockSize: shape.blockSize
        )
        rows = try backend.random(Shape(shape.rows, width), dtype)
        self.inner = try backend.random(Shape(shape.rows, inner), dtype)
        values = try backend.random(Shape(topology.blockRows * shape.blockSize, inner), dtype)
        first = try backend.random(Shape(shape.experts, inner, width), dtype, deviation: 0.02)
        second = try backend.random(Shape(shape.experts, width, inner), dtype, deviation: 0.02)
        firstGradient = try backend.zeros(first.shape, precision.gradientType, .workspace)
        secondGradient = try backend.zeros(second.shape, precision.gradientType, .workspace)
        wideResult = try backend.empty(rows.shape, dtype, .workspace)
        innerResult = try backend.empty(self.inner.shape, dtype, .workspace)
        valueResult = try backend.empty(values.shape, dtype, .workspace)
        denseGradient = try backend.zeros(Shape(inner, width), precision.gradientType, .workspace)
    }

    /// Seconds of one product: block-sparse, grouped, dense.
    struct Form {
        let name: String
        let seconds: [Double]
    }

    /// The medians of the six products, and of building the topology.
    func measure(rounds: Int) throws -> (forms: [Form], topology: Double) {
        let works = forms.flatMap { form in form.works.map { TimedWork(backend: backend, body: $0) } }
        let build = TimedWork(backend: backend) {
            _ = try backend.blockTopology(
                offsets: offsets, rowBound: shape.rows, blocksPerExpert: shape.expertWidth / shape.blockSize,
                blockSize: shape.blockSize)
        }
        let seconds = try timeInTurn(works + [build], rounds: rounds).map(median)
        let measured = forms.enumerated().map { index, form in
            Form(name: form.name, seconds: Array(seconds[3 * index..<3 * index + 3]))
        }
        return (measured, seconds[seconds.count - 1])
    }

    private typealias Work = () throws -> Void

    private var forms: [(name: String, works: [Work])] {
        let (firstStack, secondStack) = (BlockStack(first), BlockStack(second, transposed: true))
        let (oneFirst, oneSecond) = (one(first), one(second))
        return [
            (
                "sdd, first product",
                [
                    { try backend.sdd(rows.matrix, firstStack, topology: topology, into: valueResult) },
                    { try grouped(rows, first, transposed: true, into: innerResult) },
                    { try backend.matMul(rows.matrix, oneFirst.transpose, into: innerResult) },
                ]
            ),
            (
                "dsd, second product",
                [
                    { try backend.dsd(values, secondStack, topology: topology, into: wideResult, adds: false) },
                    { try grouped(inner, second, transposed: true, into: wideResult) },
                    { try backend.matMul(inner.matrix, oneSecond.transpose, into: wideResult) },
                ]
            ),
            (
                "sdd, data gradient",
                [
                    { try backend.sdd(rows.matrix, secondStack, topology: topology, into: valueResult) },
                    { try grouped(rows, second, transposed: false, into: innerResult) },
                    { try backend.matMul(rows.matrix, oneSecond.matrix, into: innerResult) },
                ]
            ),
            (
                "dds, weight gradient",
                [
                    {
                        try backend.dds(
                            rows.transpose, values, topology: topology,
                            into: BlockStack(secondGradient, transposed: true), adds: true)
                    },
                    { try gradient(rows, inner, into: secondGradient) },
                    {
                        try backend.matMul(
                            rows.transpose, inner.matrix,
                            into: denseGradient.reshaped(shape.width, shape.expertWidth), adds: true)
                    },
                ]
            ),
            (
                "dstd, weight gradient",
                [
                    {
                        try backend.dstd(
                            values, rows.matrix, topology: topology, into: BlockStack(firstGradient), adds: true)
                    },
                    { try gradient(inner, rows, into: firstGradient) },
                    { try backend.matMul(inner.transpose, rows.matrix, into: denseGradient, adds: true) },
                ]
            ),
            (
                "dsd, data gradient",
                [
                    { try backend.dsd(values, firstStack, topology: topology, into: wideResult, adds: false) },
                    { try grouped(inner, first, transposed: false, into: wideResult) },
                    { try backend.matMul(inner.matrix, oneFirst.matrix, into: wideResult) },
                ]
            ),
        ]
    }

    /// The first expert's matrix.
    private func one(_ stack: Tensor) -> Tensor { stack[0..<1].reshaped(stack.shape[1], stack.shape[2]) }

    private func grouped(_ x: Tensor, _ weights: Tensor, transposed: Bool, into out: Tensor) throws {
        try backend.groupedMatMul(
            x, rows: nil, weights: weights, transposed: transposed, offsets: offsets, into: out)
    }

    private func gradient(_ dy: Tensor, _ x: Tensor, into gradient: Tensor) throws {
        try backend.groupedWeightGradient(dy, x, rows: nil, offsets: offsets, into: gradient, adds: true)
    }
}
