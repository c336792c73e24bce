public import ApusKernels
public import ApusNN
import ApusTensor

// Shape letters: T tokens, D model width, Hq query heads, Hk key heads, N tensor-parallel ranks.

/// Attention with the heads divided over the ranks: each has Hq / N query and Hk / N key heads, the rows of the three
/// projections that make them, and the columns of the output projection that read them. What compresses for all heads
/// (``LatentAttention``) every rank computes, and has its heads' part of the gradient.
public struct TensorParallelAttention: AttentionLayer {
    private let local: any DivisibleAttention
    private let outputBias: (any Weight)?
    private let boundary: any TokenBoundary

    /// Divided attention of which `local` has this rank's heads, and the whole output bias.
    public init(_ local: any DivisibleAttention, boundary: any TokenBoundary) {
        // Every rank would add the bias to its part of the sum.
        self.local = local.replacing(output: Linear(weight: local.output.weight))
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
