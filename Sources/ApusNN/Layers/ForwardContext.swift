public import ApusKernels
public import ApusTensor

/// How a flat run of tokens is made of sequences. Models never see a rectangle.
public struct TokenLayout: Sendable {
    /// (S + 1) `i32`: sequence `s` holds tokens `cumulativeLengths[s] ..< cumulativeLengths[s + 1]`.
    public let cumulativeLengths: Tensor
    /// (T) `i32`: each token's place in its sequence.
    public let positions: Tensor
    /// (T) `i32`: first visible key of each token, for documents packed into a sequence; `nil` for all.
    public let firstKey: Tensor?
    /// Token ranges of the routing groups, in order and without gaps.
    public let routingGroups: [Range<Int>]
    /// Token ranges over which the balance loss is formed, each of whole routing groups; the routing groups themselves
    /// unless larger ones are asked for.
    public let balanceGroups: [Range<Int>]
    /// (T) `u8`, 1 for tokens that count in the pooled balance loss, 0 for padding; `nil` for all.
    public let tokenMask: Tensor?
    /// Place of the first token in the global batch: what draws are keyed by.
    public let firstGlobalToken: Int

    /// A layout made of its parts.
    public init(
        cumulativeLengths: Tensor, positions: Tensor, firstKey: Tensor? = nil, routingGroups: [Range<Int>],
        balanceGroups: [Range<Int>]? = nil, tokenMask: Tensor? = nil, firstGlobalToken: Int = 0
    ) {
        self.cumulativeLengths = cumulativeLengths
        self.positions = positions
        self.firstKey = firstKey
        self.routingGroups = routingGroups
        self.balanceGroups = balanceGroups ?? routingGroups
        self.tokenMask = tokenMask
        self.firstGlobalToken = firstGlobalToken
    }

    /// T.
    public var tokenCount: Int { positions.count }

    /// The same layout for tokens elsewhere in the global batch, or with positions and first keys (T) of their own.
    public func at(firstGlobalToken: Int, positions: Tensor? = nil, firstKey: Tensor? = nil) -> TokenLayout {
        TokenLayout(
            cumulativeLengths: cumulativeLengths, positions: positions ?? self.positions,
            firstKey: firstKey ?? self.firstKey, routingGroups: routingGroups, balanceGroups: balanceGroups,
            tokenMask: tokenMask, firstGlobalToken: firstGlobalToken)
    }

    /// Sequences of the given lengths, each starting at the given position, `groupSize` of them to a routing group and
    /// `balanceSize` to a group of the balance loss (as many by default).
    ///
    /// - Throws: ``TensorError/outOfMemory(requested:purpose:statistics:limit:)``, and what the device's copies throw.
    public static func sequences(
        _ lengths: [Int], startingAt starts: [Int]? = nil, groupSize: Int = 1, balanceSize: Int? = nil,
        firstGlobalToken: Int = 0, tokenMask: Tensor? = nil, backend: any Backend
    ) throws -> TokenLayout {
        let balanceSize = balanceSize ?? groupSize
        precondition(groupSize >= 1 && balanceSize % groupSize == 0)
        var boundaries: [Int32] = [0]
        var positions: [Int32] = []
        positions.reserveCapacity(lengths.reduce(0, +))
        for (index, length) in lengths.enumerated() {
            let start = starts?[index] ?? 0
            positions.append(contentsOf: (start..<start + length).map(Int32.init))
            boundaries.append(Int32(positions.count))
        }
        func groups(of size: Int) -> [Range<Int>] {
            stride(from: 0, to: lengths.count, by: size).map { first in
                Int(boundaries[first])..<Int(boundaries[min(first + size, lengths.count)])
            }
        }
        return TokenLayout(
            cumulativeLengths: try backend.tensor(boundaries, Shape(boundaries.count)),
            positions: try backend.tensor(positions, Shape(positions.count)),
            routingGroups: groups(of: groupSize), balanceGroups: groups(of: balanceSize),
            tokenMask: tokenMask, firstGlobalToken: firstGlobalToken)
    }
}

/// Keeps keys and values of sequences that grow, and the last rows that convolutions read: what generation gives layers
/// that mix tokens.
public protocol KeyValueStore: AnyObject {
    /// Appends the layer's new keys and values (T, Hk, H), laid out as the context's tokens, and returns the view over
    /// everything kept of those sequences.
    func append(layer: Int, keys: Tensor, values: Tensor) throws -> KVView
    /// Puts the layer's `earlier` last rows of each sequence, as many as there were, before its new ones among `rows`
    /// (T, width), laid out as the context's tokens, and keeps the last ones for the next call.
    func extend(layer: Int, rows: Tensor, by earlier: Int) throws -> ExtendedRows
}

/// What a layer needs besides its input: the tape, the tokens' layout, and whether this is training.
public struct ForwardContext {
    /// Records the ops.
    public let tape: Tape
    /// How the tokens are made of sequences.
    public let layout: TokenLayout
    /// The training step, keying the draws of noise; `nil` outside training, where there is none.
    public let trainingStep: Int?
    /// The run's seed.
    public let seed: UInt64
    /// Where keys and values are kept between calls; `nil` in training.
    public let keyValues: (any KeyValueStore)?
    /// Which collectives' outputs checkpointed blocks keep.
    public let keptOutputs: KeptOutputs
    /// Called in backward when the gradients of all but the first `parameters` parameters of the model are complete for
    /// this pass: when they may be given to other ranks. `nil` when nobody waits for them.
    public let gradientsComplete: ((_ parameters: Int) throws -> Void)?

    /// A context.
    public init(
        tape: Tape, layout: TokenLayout, trainingStep: Int? = nil, seed: UInt64 = 0,
        keyValues: (any KeyValueStore)? = nil, keptOutputs: KeptOutputs = [],
        gradientsComplete: ((_ parameters: Int) throws -> Void)? = nil
    ) {
        self.tape = tape
        self.layout = layout
        self.trainingStep = trainingStep
        self.seed = seed
        self.keyValues = keyValues
        self.keptOutputs = keptOutputs
        self.gradientsComplete = gradientsComplete
    }

    /// The same context on another tape, for a checkpointed block.
    public func on(_ tape: Tape) -> ForwardContext {
        ForwardContext(
            tape: tape, layout: layout, trainingStep: trainingStep, seed: seed, keyValues: keyValues,
            keptOutputs: keptOutputs, gradientsComplete: gradientsComplete)
    }
}
