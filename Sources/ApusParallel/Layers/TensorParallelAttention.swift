public import ApusKernels
public import ApusNN
import ApusTensor

// Shape letters: T tokens, D model width, Hq query heads, Hk key heads, N tensor-parallel ranks.

/// Attention with the heads divided over the ranks: each has Hq / N query and Hk / N key heads, the rows of the three
/// projections that make them, and the columns of the output projection that read them.
public struct TensorParallelAttention: AttentionLayer {
    private let local: SelfAttention
    private let outputBias: (any Weight)?
    private let boundary: any TokenBoundary

    /// Divided attention of which `local` has this rank's heads, and the whole output bias.
    public init(_ local: SelfAttention, boundary: any TokenBoundary) {
        // Every rank would add the bias to its part of the sum.
        self.local = SelfAttention(
            layer: local.layer, shape: local.shape, projection: local.projection,
            output: Linear(weight: local.output.weight), queryKeyNorm: local.queryKeyNorm, rotary: local.rotary)
        outputBias = local.output.bias
        self.boundary = boundary
    }

    public var rotary: RotaryTable? { local.rotary }

    public func callAsFunction(_ x: Variable, _ context: ForwardContext) throws -> Variable {
        let tape = context.tape
        let y = try boundary.leave(local(boundary.enter(x, on: tape), context), on: tape)
        return try outputBias.map { try tape.addBias(y, $0) } ?? y
    }
}
