public import ApusKernels

// Shape letters: D model width, Hq heads, N plain and R rotary elements of a query or key head, V elements of a value head, Lq
// and Lk widths of the compressed queries and of the compressed keys and values.

/// Multi-head latent attention: keys and values come from one compressed vector for each token (DeepSeek-V2 section 2.1).
public struct LatentConfiguration: Sendable, Equatable {
    /// Lq; `nil` for queries straight from the stream.
    public var queryRank: Int?
    /// Lk.
    public var keyValueRank: Int
    /// N, elements of a query or key head that say nothing of positions.
    public var plainWidth: Int
    /// R, elements of a query or key head that rotary positions turn; all heads share those of the keys.
    public var rotaryWidth: Int
    /// V.
    public var valueWidth: Int
    /// Which of the R elements are turned together.
    public var pairing: RotaryPairing

    /// Added under the root of the norms of what is compressed; fixed in DeepSeek's models, whatever their other norms add.
    public static let normEpsilon: Float = 1e-6

    /// Widths; pairs are neighbours, as in DeepSeek's own models.
    public init(
        queryRank: Int? = nil, keyValueRank: Int, plainWidth: Int, rotaryWidth: Int, valueWidth: Int,
        pairing: RotaryPairing = .neighbours
    ) {
        self.queryRank = queryRank
        self.keyValueRank = keyValueRank
        self.plainWidth = plainWidth
        self.rotaryWidth = rotaryWidth
        self.valueWidth = valueWidth
        self.pairing = pairing
    }

    /// N + R.
    public var keyWidth: Int { plainWidth + rotaryWidth }

    /// Elements of a layer's matrices, in floating point because those of impossible sizes overflow.
    func matrixElements(width: Int, heads: Int) -> Double {
        let (model, count, latent) = (Double(width), Double(heads), Double(keyValueRank))
        let queries =
            queryRank.map { Double($0) * (model + count * Double(keyWidth)) } ?? model * count * Double(keyWidth)
        return queries + model * (latent + Double(rotaryWidth)) + latent * count * Double(plainWidth + valueWidth)
            + count * Double(valueWidth) * model
    }
}

extension ModelConfiguration {
    /// Width of the heads that the key-value cache keeps: that of queries and keys, or of values where those are wider.
    public var cachedHeadWidth: Int { max(headWidth, latent?.valueWidth ?? 0) }

    /// Elements of each query and key that rotary positions turn.
    var rotaryWidth: Int { latent?.rotaryWidth ?? headWidth }

    /// Refuses a latent attention that cannot be.
    func checkLatent() throws(ModelConfigurationError) {
        guard let latent else {
            return try require(
                yarn == nil, "yarn", "a group",
                "only latent attention has its scores scaled for a longer context: set 'latent', or leave 'yarn' out")
        }
        let sizes = [
            ("query_rank", latent.queryRank ?? 1), ("key_value_rank", latent.keyValueRank),
            ("plain_width", latent.plainWidth), ("rotary_width", latent.rotaryWidth),
            ("value_width", latent.valueWidth),
        ]
        for (key, value) in sizes {
            try require((1...1 << 40).contains(value), "latent.\(key)", value, "it must be at least 1")
        }
        try require(
            latent.rotaryWidth % 2 == 0, "latent.rotary_width", latent.rotaryWidth,
            "rotary positions turn pairs, so it must be even")
        try require(
            latent.valueWidth <= Self.largestHeadWidth, "latent.value_width", latent.valueWidth,
            "attention takes heads of at most \(Self.largestHeadWidth)")
        try require(
            headWidth == latent.keyWidth, "head_width", headWidth,
            "it must be latent.plain_width and latent.rotary_width together, \(latent.keyWidth)")
        try require(
            keyValueHeads == heads, "key_value_heads", keyValueHeads,
            "latent attention makes a key and a value for each head, so it must be 'heads', \(heads)")
        try require(position != .learned, "position.kind", "'learned'", "latent attention turns keys: use 'rotary'")
        try require(
            queryKeyNorm == .none, "query_key_norm", "'\(queryKeyNorm.rawValue)'",
            "latent attention normalises what it compresses instead: use 'none'")
        try require(
            !attentionBias, "attention_bias", "true", "the projections of latent attention have none: use false")
        try require(
            attentionClip == nil, "attention_clip", "\(attentionClip ?? 0)", "latent attention clamps nothing: use null"
        )
        if let yarn { try yarn.check(theta: rotaryTheta ?? 0) }
    }

    /// The base of rotary positions, where they are that.
    var rotaryTheta: Double? { if case .rotary(let theta) = position { theta } else { nil } }
}

extension LatentConfiguration {
    var jsonValue: JSONValue {
        .object([
            "query_rank": .optional(queryRank) { .integer($0) }, "key_value_rank": .integer(keyValueRank),
            "plain_width": .integer(plainWidth), "rotary_width": .integer(rotaryWidth),
            "value_width": .integer(valueWidth), "pairing": .string(pairing.rawValue),
        ])
    }

    init(_ fields: JSONFields) throws(ModelConfigurationError) {
        try fields.refuseUnknown(known: [
            "query_rank", "key_value_rank", "plain_width", "rotary_width", "value_width", "pairing",
        ])
        try fields.requirePresent("query_rank")
        try self.init(
            queryRank: fields.optionalInteger("query_rank"), keyValueRank: fields.integer("key_value_rank"),
            plainWidth: fields.integer("plain_width"), rotaryWidth: fields.integer("rotary_width"),
            valueWidth: fields.integer("value_width"), pairing: fields.choice("pairing"))
    }
}
