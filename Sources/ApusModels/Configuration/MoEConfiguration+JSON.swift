import ApusExperts
import ApusKernels

extension MoEConfiguration {
    var jsonValue: JSONValue {
        var fields: [String: JSONValue] = [
            "kind": .string("moe"),
            "experts": .integer(experts),
            "choices": .integer(choices),
            "width": .integer(width),
            "activation": .string(activation.rawValue),
            "router": router.jsonValue,
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
        ]
        if dropout != 0 { fields["dropout"] = .float(dropout) }
        if let parametersOf { fields["parameters_of"] = .integer(parametersOf) }
        if sharedCombination != .sum { fields["shared_combination"] = .string(sharedCombination.rawValue) }
        if let shortcut {
            fields["shortcut"] = .object([
                "position": .integer(shortcut.position.rawValue), "dual": .bool(shortcut.isDual),
            ])
        }
        return .object(fields)
    }

    init(_ fields: JSONFields) throws(ModelConfigurationError) {
        try fields.refuseUnknown(known: [
            "kind", "experts", "choices", "width", "activation", "router", "policy", "bank", "block_size", "losses",
            "shared_width", "residual", "dropout", "shared_combination", "shortcut",
            "parameters_of",
        ])
        let losses = try fields.object("losses")
        try losses.refuseUnknown(known: ["balance", "scope", "z", "importance"])
        try self.init(
            experts: fields.integer("experts"), choices: fields.integer("choices"), width: fields.integer("width"),
            activation: fields.choice("activation"),
            router: RouterConfiguration(fields.object("router")),
            policy: TokenPolicy(fields.object("policy")), bank: fields.choice("bank"),
            blockSize: fields.integer("block_size"),
            losses: RouterLosses(
                balance: losses.float("balance"), scope: losses.choice("scope"), z: losses.float("z"),
                importance: losses.float("importance")),
            sharedWidth: fields.integer("shared_width"),
            sharedCombination: fields.value("shared_combination") == nil ? .sum : fields.choice("shared_combination"),
            shortcut: fields.value("shortcut") == nil ? nil : ShortcutConfiguration(fields.object("shortcut")),
            isResidual: fields.bool("residual"), dropout: fields.float("dropout", default: 0),
            parametersOf: fields.optionalInteger("parameters_of"))
    }
}

extension RouterConfiguration {
    fileprivate var jsonValue: JSONValue {
        var fields: [String: JSONValue] = [
            "scoring": .string(scoring.rawValue),
            "renormalizes": .bool(renormalizes),
            "weight_scale": .float(weightScale),
            "jitter": .float(jitter),
            "gumbel": .bool(gumbel),
            "bias_rate": .float(biasRate),
        ]
        if let cosine {
            fields["cosine"] = .object([
                "width": .integer(cosine.width), "temperature": .float(cosine.temperature),
                "floor": .float(cosine.floor),
            ])
        }
        if let groupLimit {
            fields["groups"] = .object([
                "count": .integer(groupLimit.groups), "chosen": .integer(groupLimit.chosen),
                "score": .string(groupLimit.score.rawValue),
            ])
        }
        if let nodes { fields["nodes"] = .integer(nodes) }
        if let annealing {
            fields["annealing"] = .object([
                "start": .float(annealing.start), "end": .float(annealing.end), "steps": .integer(annealing.steps),
                "threshold": .float(annealing.threshold),
            ])
        }
        return .object(fields)
    }

    fileprivate init(_ fields: JSONFields) throws(ModelConfigurationError) {
        try fields.refuseUnknown(known: [
            "scoring", "renormalizes", "weight_scale", "jitter", "gumbel", "bias_rate", "cosine", "groups", "annealing",
            "nodes",
        ])
        try self.init(
            scoring: fields.choice("scoring"), renormalizes: fields.bool("renormalizes"),
            weightScale: fields.float("weight_scale"), jitter: fields.float("jitter"),
            gumbel: fields.bool("gumbel"), biasRate: fields.float("bias_rate"))
        if fields.value("cosine") != nil {
            let group = try fields.object("cosine")
            try group.refuseUnknown(known: ["width", "temperature", "floor"])
            cosine = try CosineConfiguration(
                width: group.integer("width"), temperature: group.float("temperature"), floor: group.float("floor"))
        }
        if fields.value("groups") != nil {
            let group = try fields.object("groups")
            try group.refuseUnknown(known: ["count", "chosen", "score"])
            groupLimit = try GroupLimit(
                groups: group.integer("count"), chosen: group.integer("chosen"), score: group.choice("score"))
        }
        nodes = try fields.optionalInteger("nodes")
        if fields.value("annealing") != nil {
            let group = try fields.object("annealing")
            try group.refuseUnknown(known: ["start", "end", "steps", "threshold"])
            annealing = try DenseToSparse(
                start: group.float("start"), end: group.float("end"), steps: group.integer("steps"),
                threshold: group.float("threshold"))
        }
    }
}

extension ShortcutConfiguration {
    fileprivate init(_ fields: JSONFields) throws(ModelConfigurationError) {
        try fields.refuseUnknown(known: ["position", "dual"])
        let number = try fields.integer("position")
        guard let position = Position(rawValue: number) else {
            throw fields.wrong("position", .integer(number), "1, 2 or 3")
        }
        self.init(position: position, isDual: try fields.bool("dual"))
    }
}

extension TokenPolicy {
    fileprivate var jsonValue: JSONValue {
        switch self {
        case .dropless: .object(["kind": .string("dropless")])
        case .capacity(let factor, let minimum, let order, let evaluation):
            .object(
                [
                    "kind": .string("capacity"), "factor": .float(factor), "minimum": .integer(minimum),
                    "order": .string(order.rawValue),
                ].merging(evaluation.map { ["evaluation": .float($0)] } ?? [:]) { $1 })
        }
    }

    fileprivate init(_ fields: JSONFields) throws(ModelConfigurationError) {
        switch try fields.string("kind") {
        case "dropless":
            try fields.refuseUnknown(known: ["kind"])
            self = .dropless
        case "capacity":
            try fields.refuseUnknown(known: ["kind", "factor", "minimum", "order", "evaluation"])
            self = try .capacity(
                factor: fields.float("factor"), minimum: fields.integer("minimum"), order: fields.choice("order"),
                evaluation: fields.optionalFloat("evaluation"))
        case let other: throw fields.wrong("kind", .string(other), "one of 'dropless', 'capacity'")
        }
    }
}
