import ApusExperts
import ApusKernels
import ApusTensor

extension ModelConfiguration {
    /// The `model_type` of Apus' own `config.json`.
    public static let modelType = "apus"

    /// The text of Apus' own configuration file.
    ///
    /// Every field, keys sorted, a newline at the end; it reads back as an equal value. What came later than the first
    /// checkpoints is left out where there is none of it, so that these can still be read.
    public func json() -> String { jsonValue.text }

    /// The fields of that file.
    var jsonValue: JSONValue {
        var fields: [String: JSONValue] = [
            "model_type": .string(Self.modelType),
            "vocabulary": .integer(vocabulary),
            "width": .integer(width),
            "heads": .integer(heads),
            "key_value_heads": .integer(keyValueHeads),
            "head_width": .integer(headWidth),
            "maximum_positions": .integer(maximumPositions),
            "norm": .string(norm.rawValue),
            "norm_epsilon": .float(normEpsilon),
            "position": position.jsonValue,
            "query_key_norm": .string(queryKeyNorm.rawValue),
            "attention_bias": .bool(attentionBias),
            "attention_clip": .optional(attentionClip) { .float($0) },
            "sliding_window": .optional(slidingWindow) { .integer($0) },
            "activation": .string(activation.rawValue),
            "feed_forward": .array(feedForward.map(\.jsonValue)),
            "tied_embeddings": .bool(tiedEmbeddings),
            "initial_deviation": .float(initialDeviation),
        ]
        if let initialScale { fields["initial_scale"] = .float(initialScale) }
        if let latent { fields["latent"] = latent.jsonValue }
        if let yarn { fields["yarn"] = yarn.jsonValue }
        if let patches { fields["patches"] = patches.jsonValue }
        if let convolution { fields["convolution"] = convolution.jsonValue }
        return .object(fields)
    }

    /// Reads the text of Apus' own configuration file; keys that are missing or unknown are errors.
    ///
    /// - Parameter path: where the text is from, for errors.
    /// - Throws: `malformed`, `unknownArchitecture`, `missingKey`, `unknownKey`, `wrongValue` or `impossible`.
    public init(json: String, path: String = "config.json") throws(ModelConfigurationError) {
        try self.init(JSONFields(JSONValue(parsing: json, path: path), path: path))
    }

    init(_ fields: JSONFields) throws(ModelConfigurationError) {
        let type = try fields.string("model_type")
        guard type == Self.modelType else {
            throw .wrongValue(
                path: fields.path, key: "model_type", found: quoted(type), wanted: "'apus' to be read in this form")
        }
        try fields.refuseUnknown(known: [
            "model_type", "vocabulary", "width", "heads", "key_value_heads", "head_width", "maximum_positions", "norm",
            "norm_epsilon", "position", "query_key_norm", "attention_bias", "attention_clip", "sliding_window",
            "activation", "feed_forward", "tied_embeddings", "initial_deviation", "initial_scale",
            "latent", "yarn", "patches", "convolution",
        ])
        try fields.requirePresent("attention_clip", "sliding_window")
        var parts: [FeedForward] = []
        for (layer, element) in try fields.array("feed_forward").enumerated() {
            parts.append(
                try FeedForward(JSONFields(element, path: fields.path, scope: "feed_forward[\(layer)].")))
        }
        try self.init(
            vocabulary: fields.integer("vocabulary"), width: fields.integer("width"), heads: fields.integer("heads"),
            keyValueHeads: fields.integer("key_value_heads"), headWidth: fields.integer("head_width"),
            maximumPositions: fields.integer("maximum_positions"), norm: fields.choice("norm"),
            normEpsilon: fields.float("norm_epsilon"), position: Position(fields.object("position")),
            queryKeyNorm: fields.choice("query_key_norm"), attentionBias: fields.bool("attention_bias"),
            attentionClip: fields.optionalFloat("attention_clip"),
            slidingWindow: fields.optionalInteger("sliding_window"), activation: fields.choice("activation"),
            feedForward: parts, tiedEmbeddings: fields.bool("tied_embeddings"),
            initialDeviation: fields.float("initial_deviation"),
            initialScale: fields.optionalFloat("initial_scale"),
            latent: fields.value("latent") == nil ? nil : LatentConfiguration(fields.object("latent")),
            yarn: fields.value("yarn") == nil ? nil : YarnConfiguration(fields.object("yarn")),
            patches: fields.value("patches") == nil ? nil : PatchConfiguration(fields.object("patches")),
            convolution: fields.value("convolution") == nil
                ? nil : ConvolutionConfiguration(fields.object("convolution")))
        try checkSizes()
    }
}

extension ModelConfiguration.Position {
    var jsonValue: JSONValue {
        switch self {
        case .rotary(let theta): .object(["kind": .string("rotary"), "theta": .number(theta)])
        case .learned: .object(["kind": .string("learned")])
        }
    }

    init(_ fields: JSONFields) throws(ModelConfigurationError) {
        switch try fields.string("kind") {
        case "rotary":
            try fields.refuseUnknown(known: ["kind", "theta"])
            self = .rotary(theta: try fields.number("theta"))
        case "learned":
            try fields.refuseUnknown(known: ["kind"])
            self = .learned
        case let other: throw fields.wrong("kind", .string(other), "one of 'rotary', 'learned'")
        }
    }
}

extension ModelConfiguration.FeedForward {
    var jsonValue: JSONValue {
        switch self {
        case .dense(let width): .object(["kind": .string("dense"), "width": .integer(width)])
        case .moe(let moe): moe.jsonValue
        }
    }

    init(_ fields: JSONFields) throws(ModelConfigurationError) {
        switch try fields.string("kind") {
        case "dense":
            try fields.refuseUnknown(known: ["kind", "width"])
            self = .dense(width: try fields.integer("width"))
        case "moe": self = .moe(try MoEConfiguration(fields))
        case let other: throw fields.wrong("kind", .string(other), "one of 'dense', 'moe'")
        }
    }
}
