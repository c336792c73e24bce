public import ApusCollectives
public import ApusNN
import ApusTensor

// Shape letters: T tokens, D model width, N tensor-parallel ranks.

/// Around a layer whose computation is divided over the ranks: each reads all tokens and yields a part of a sum.
///
/// Without divided tokens: the value itself at entry, an all-reduce at exit. With them: an all-gather of the ranks'
/// T / N tokens at entry, a reduce-scatter at exit; the same bytes on the wire, and N times less to keep between layers.
public struct DividedLayerBoundary: TokenBoundary {
    /// The ranks.
    public let group: any Collective
    /// Whether the residual stream has T / N tokens on each rank.
    public let dividesTokens: Bool
    /// The layer, for messages.
    public let layer: Int?

    /// A boundary between the residual stream and a divided layer.
    public init(group: any Collective, dividesTokens: Bool, layer: Int?) {
        self.group = group
        self.dividesTokens = dividesTokens
        self.layer = layer
    }

    /// The layer's input, (T, D). Its gradient is the sum of those of the ranks' parts.
    public func enter(_ x: Variable, on tape: Tape) throws -> Variable {
        guard dividesTokens else { return try tape.fanOut(x, over: group, layer: layer) }
        return try tape.startAllGather(x, downstream: .partial, over: group, layer: layer).finish()
    }

    /// The sum of the ranks' outputs (T, D), or this rank's tokens of it.
    ///
    /// - Throws: ``PartitionError/tokens(count:ranks:)``, and what the exchange throws.
    public func leave(_ y: Variable, on tape: Tape) throws -> Variable {
        guard dividesTokens else {
            return try tape.startAllReduce(y, downstream: .replicated, over: group, layer: layer).finish()
        }
        try group.checkDivides(tokens: y.shape[0])
        return try tape.startReduceScatter(y, over: group, layer: layer).finish()
    }
}

/// Around a layer that every rank computes whole, for all tokens, where the residual stream is divided by tokens.
public struct ReplicatedLayerBoundary: TokenBoundary {
    /// The ranks.
    public let group: any Collective
    /// The layer, for messages.
    public let layer: Int?

    /// A boundary between a divided stream and a layer that is not.
    public init(group: any Collective, layer: Int?) {
        self.group = group
        self.layer = layer
    }

    /// All tokens (T, D) of the ranks' T / N.
    public func enter(_ x: Variable, on tape: Tape) throws -> Variable {
        try tape.startAllGather(x, downstream: .replicated, over: group, layer: layer).finish()
    }

    /// This rank's tokens.
    public func leave(_ y: Variable, on tape: Tape) throws -> Variable {
        try tape.takeOwnRows(y, over: group, layer: layer)
    }
}

extension Collective {
    /// Refuses a number of tokens that the ranks cannot share equally.
    func checkDivides(tokens: Int) throws(PartitionError) {
        guard tokens % size == 0 else { throw .tokens(count: tokens, ranks: size) }
    }
}
