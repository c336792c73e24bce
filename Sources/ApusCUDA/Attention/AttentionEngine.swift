// Shape letters: S sequences, T query tokens, Hq query heads, Hk key heads, H head width.

/// Who computes one call of attention: cuDNN's fused kernels, or our own, which do everything.
enum AttentionEngine: Equatable, Sendable {
    case fused(FusedShape)
    case own(Reason)

    /// Why cuDNN is not asked.
    enum Reason: Equatable, Sendable {
        /// Its choice of a kernel depends on the batch.
        case batchInvariant
        /// Work that is recorded, to be done again.
        case recorded
        /// Nothing will be differentiated: such passes come in ever new lengths, and finding a kernel for each would cost more
        /// than it saves.
        case forwardOnly
        /// Nothing but Hopper was tried.
        case device
        case elementType
        /// Keys in blocks.
        case blocks
        /// Keys before a document's start, or before a window's, are not seen.
        case partlySeen
        /// Sequences of several lengths, or of lengths that only the device knows.
        case lengths
        /// Sequences so short that finding a kernel costs more than it saves.
        case short
        /// Causal over keys that are more or fewer than the queries.
        case unevenCausal
        case width
        /// Rows that do not lie on 16 bytes.
        case alignment
    }

    /// Tokens below which a sequence is short.
    static let shortest = 64
    /// Widths of heads.
    static let widths = [64, 128]

    /// The choice, by facts that the host has.
    init(_ call: AttentionFacts) {
        let shape = FusedShape(
            sequences: call.queryLengths?.sequences ?? 0, queryHeads: call.queryHeads, keyHeads: call.keyHeads,
            queryLength: call.queryLengths?.length ?? 0, keyLength: call.keyLengths?.length ?? 0, width: call.width,
            isCausal: call.isCausal, queryStride: call.queryStride, keyStride: call.keyStride,
            valueStride: call.valueStride, outStride: call.outStride, logSumExpStride: call.queryHeads,
            gradients: call.gradients)
        self = AttentionEngine.reason(call, shape).map { .own($0) } ?? .fused(shape)
    }

    private static func reason(_ call: AttentionFacts, _ shape: FusedShape) -> Reason? {
        if call.isBatchInvariant { return .batchInvariant }
        if call.isRecording { return .recorded }
        if !call.keepsSums { return .forwardOnly }
        if call.capability != LibraryVersion(9, 0) { return .device }
        if !call.isBF16 { return .elementType }
        if call.areKeysInBlocks { return .blocks }
        if call.window > 0 || call.hasFirstKeys { return .partlySeen }
        guard let queries = call.queryLengths, let keys = call.keyLengths, queries.sequences == keys.sequences,
            queries.sequences * queries.length == call.tokens, keys.sequences * keys.length == call.keyTokens
        else { return .lengths }
        if min(queries.length, keys.length) < shortest { return .short }
        if call.isCausal && queries.length != keys.length { return .unevenCausal }
        if !widths.contains(call.width) { return .width }
        let elements = FusedShape.alignment / 2
        let gradients = shape.gradients.map { [$0.out, $0.query, $0.key, $0.value] } ?? []
        let strides = [shape.queryStride, shape.keyStride, shape.valueStride, shape.outStride] + gradients
        guard strides.allSatisfy({ $0 % elements == 0 }),
            call.addresses.allSatisfy({ $0 % UInt64(FusedShape.alignment) == 0 })
        else { return .alignment }
        return nil
    }
}

/// What the choice of an engine depends on.
struct AttentionFacts: Sendable {
    var capability: LibraryVersion
    var isBatchInvariant: Bool
    /// Whether the stream records what it is given.
    var isRecording: Bool
    /// Whether the log-sum-exp is kept, for a backward pass.
    var keepsSums: Bool
    /// Whether all operands are.
    var isBF16: Bool
    var areKeysInBlocks: Bool
    var isCausal: Bool
    var window: Int
    var hasFirstKeys: Bool
    /// What the host knows of the sequences among queries and keys.
    var queryLengths: EqualLengths.Sequences?
    var keyLengths: EqualLengths.Sequences?
    /// T, and that of the keys.
    var tokens: Int
    var keyTokens: Int
    /// Hq.
    var queryHeads: Int
    /// Hk.
    var keyHeads: Int
    /// H.
    var width: Int
    /// Elements between tokens.
    var queryStride, keyStride, valueStride, outStride: Int
    var gradients: FusedShape.Gradients?
    /// Of all operands.
    var addresses: [UInt64]
}
