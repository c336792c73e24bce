import ApusExperts
import ApusKernels
import ApusTensor

extension ModelConfiguration {
    /// The `model_type` of Apus' own `config.json`.
    public static let modelType = "apus"

    /// The text of Apus' own configuration file.
    ///
    /// Every field, keys sorted, a newline at the end; it reads back as an equal value.
    public func json() -> String {
        let fields: [String: JSONValue] = [
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
        return JSONValue.object(fields).text
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
            "activation", "feed_forward", "tied_embeddings", "initial_deviation",
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
            initialDeviation: fields.float("initial_deviation"))
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

extension MoEConfiguration {
    fileprivate var jsonValue: JSONValue {
        .object([
            "kind": .string("moe"),
            "experts": .integer(experts),
            "choices": .integer(choices),
            "width": .integer(width),
            "activation": .string(activation.rawValue),
            "router": .object([
                "scoring": .string(router.scoring.rawValue),
                "renormalizes": .bool(router.renormalizes),
                "weight_scale": .float(router.weightScale),
                "jitter": .float(router.jitter),
                "gumbel": .bool(router.gumbel),
                "bias_rate": .float(router.biasRate),
            ]),
            "policy": policy.jsonValue,
            "bank": .string(bank.rawValue),
            "block_size": .integer(blockSize),
            "losses": .object([
                "balance": .float(losses.balance),
                "scope": .string(losses.scope.rawValue),
                "z": .float(losses.z),
                "importance": .float(losses.importance),
            ]),
            "shared_width": .integer(sharedWidth),
            "residual": .bool(isResidual),
        ])
    }

    fileprivate init(_ fields: JSONFields) throws(ModelConfigurationError) {
        try fields.refuseUnknown(known: [
            "kind", "experts", "choices", "width", "activation", "router", "policy", "bank", "block_size", "losses",
            "shared_width", "residual",
        ])
        let router = try fields.object("router")
        try router.refuseUnknown(
            known: ["scoring", "renormalizes", "weight_scale", "jitter", "gumbel", "bias_rate"])
        let losses = try fields.object("losses")
        try losses.refuseUnknown(known: ["balance", "scope", "z", "importance"])
        try self.init(
            experts: fields.integer("experts"), choices: fields.integer("choices"), width: fields.integer("width"),
            activation: fields.choice("activation"),
            router: RouterConfiguration(
                scoring: router.choice("scoring"), renormalizes: router.bool("renormalizes"),
                weightScale: router.float("weight_scale"), jitter: router.float("jitter"),
                gumbel: router.bool("gumbel"), biasRate: router.float("bias_rate")),
            policy: TokenPolicy(fields.object("policy")), bank: fields.choice("bank"),
            blockSize: fields.integer("block_size"),
            losses: RouterLosses(
                balance: losses.float("balance"), scope: losses.choice("scope"), z: losses.float("z"),
                importance: losses.float("importance")),
            sharedWidth: fields.integer("shared_width"), isResidual: fields.bool("residual"))
    }
}

extension TokenPolicy {
    fileprivate var jsonValue: JSONValue {
        switch self {
        case .dropless: .object(["kind": .string("dropless")])
        case .capacity(let factor, let minimum, let order):
            .object([
                "kind": .string("capacity"), "factor": .float(factor), "minimum": .integer(minimum),
                "order": .string(order.rawValue),
            ])
        }
    }

    fileprivate init(_ fields: JSONFields) throws(ModelConfigurationError) {
        switch try fields.string("kind") {
        case "dropless":
            try fields.refuseUnknown(known: ["kind"])
            self = .dropless
        case "capacity":
            try fields.refuseUnknown(known: ["kind", "factor", "minimum", "order"])
            self = try .capacity(
                factor: fields.float("factor"), minimum: fields.integer("minimum"), order: fields.choice("order"))
        case let other: throw fields.wrong("kind", .string(other), "one of 'dropless', 'capacity'")
        }
    }
}
