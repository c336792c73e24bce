import Glibc

/// How well a model predicts tokens.
public struct Evaluation: Sendable, Equatable {
    /// Summed loss of the predicted tokens, in nats.
    public let nats: Double
    /// Predicted tokens: all but the first of each sequence.
    public let tokens: Int
    /// Bytes that the predicted tokens stand for; `nil` when there was no vocabulary to tell.
    public let bytes: Int?

    /// Mean loss of a token.
    public var natsPerToken: Double { nats / Double(tokens) }
    /// `exp` of the mean loss.
    public var perplexity: Double { exp(natsPerToken) }
    /// What a byte of text costs, comparable between vocabularies; `nil` when bytes are not known, or none.
    public var bitsPerByte: Double? { bytes.flatMap { $0 > 0 ? nats / M_LN2 / Double($0) : nil } }
}
