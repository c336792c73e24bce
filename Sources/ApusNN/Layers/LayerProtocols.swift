public import ApusKernels
public import ApusTensor

// Shape letters: T tokens, D model width, V vocabulary.

// What a model asks of its layers. The layers of one rank conform as they are; a layer that is divided over ranks
// stands in the same place.

/// Mixes the tokens of a sequence: (T, D) to (T, D).
public protocol AttentionLayer {
    /// Angles of the positions, or `nil` when positions are learned, or the layer has no need of them.
    var rotary: RotaryTable? { get }
    /// (T, D) to (T, D).
    func callAsFunction(_ x: Variable, _ context: ForwardContext) throws -> Variable
}

/// Attention whose heads ranks may divide, or a convolution whose channels: each holds what makes some of them, and adds
/// its part of the output.
public protocol DivisibleAttention: AttentionLayer {
    /// The layer's index in the model.
    var layer: Int { get }
    /// What the heads, or channels, found to (T, D).
    var output: Linear { get }
    /// The same layer with another output projection.
    func replacing(output: Linear) -> Self
}

/// Computes each token for itself: (T, D) to (T, D).
public protocol FeedForwardLayer {
    /// (T, D) to (T, D).
    func callAsFunction(_ x: Variable, on tape: Tape) throws -> Variable
}

/// What a batch says of its tokens to the residual stream.
public protocol EmbeddingLayer {
    /// What makes vectors of it: a table (V, D), or the rows of it that are here; of patches, the projection (D, P).
    var table: any Weight { get }
    /// Token ids (T) `i32`, or the pixels of each token's patch (T * P), to (T, D).
    func callAsFunction(_ tokens: Tensor, _ context: ForwardContext) throws -> Variable
}

/// The head's product and the cross-entropy after it.
public protocol LossLayer {
    /// Brings the normalised residual stream to where the product reads it: all tokens (T, D).
    func enter(_ x: Variable, on tape: Tape) throws -> Variable
    /// Cross-entropy of hidden states (T, D) against `targets` (T) `i32`, and, with a `teacher`, the divergence from what
    /// that says of the same tokens; negative targets are ignored.
    func callAsFunction(
        _ x: Variable, targets: Tensor, scale: Float, teacher: TeacherStates?, on tape: Tape
    ) throws -> LanguageModelLoss.Result
    /// Logits (T, V) `f32` of hidden states (T, D).
    func logits(_ x: Tensor, _ backend: any Backend) throws -> Tensor
    /// Those of the entries that this rank has.
    func ownLogits(_ x: Tensor, _ backend: any Backend) throws -> Tensor
}

extension LossLayer {
    /// Cross-entropy alone.
    public func callAsFunction(
        _ x: Variable, targets: Tensor, scale: Float, on tape: Tape
    ) throws -> LanguageModelLoss.Result {
        try self(x, targets: targets, scale: scale, teacher: nil, on: tape)
    }

    /// All of them.
    public func ownLogits(_ x: Tensor, _ backend: any Backend) throws -> Tensor { try logits(x, backend) }

    /// The stream as it is.
    public func enter(_ x: Variable, on tape: Tape) throws -> Variable { x }
}

extension SelfAttention: DivisibleAttention {
    public func replacing(output: Linear) -> SelfAttention {
        SelfAttention(
            layer: layer, shape: shape, projection: projection, output: output, queryKeyNorm: queryKeyNorm,
            rotary: rotary)
    }
}
extension LatentAttention: DivisibleAttention {
    public func replacing(output: Linear) -> LatentAttention {
        LatentAttention(
            layer: layer, shape: shape, queryCompression: queryCompression, query: query,
            keyValueCompression: keyValueCompression, keyValueNorm: keyValueNorm, keyValue: keyValue, output: output,
            rotary: table)
    }
}
extension ShortConvolution: DivisibleAttention {
    public func replacing(output: Linear) -> ShortConvolution {
        ShortConvolution(layer: layer, projection: projection, taps: taps, output: output)
    }
}
extension FeedForward: FeedForwardLayer {}
extension Embedding: EmbeddingLayer {}
extension PatchEmbedding: EmbeddingLayer {}
extension LanguageModelLoss: LossLayer {}

/// What lies between the residual stream and a layer when ranks share the tokens of the one or the work of the other.
public protocol TokenBoundary {
    /// The tokens as the layer reads them.
    func enter(_ x: Variable, on tape: Tape) throws -> Variable
    /// The layer's result as the residual stream takes it.
    func leave(_ y: Variable, on tape: Tape) throws -> Variable
}
