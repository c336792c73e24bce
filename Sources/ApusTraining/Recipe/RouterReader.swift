import ApusExperts

/// Reads `model.experts.router`: how experts are chosen.
struct RouterReader {
    let section: Section
    /// The preset's router, whose values stand where the recipe gives none.
    let base: RouterConfiguration
    /// E of each mixture.
    let counts: [Int]
    /// K.
    let choices: Int

    /// The router.
    func router() -> RouterConfiguration {
        let scoring = section.choice("scoring", default: base.scoring)
        // A bias rate from a preset goes when the recipe turns to another scoring; one that was asked for does not.
        let biasRate = section.real(
            "bias_rate", .belowOne, default: scoring == .sigmoid ? base.biasRate : 0, example: 0.001)
        section.require(
            biasRate == 0 || scoring == .sigmoid, "bias_rate", with: [section.full("scoring")],
            "is \(biasRate), which scoring \(scoring.rawValue) has no bias for", "use 0, or scoring: sigmoid")
        let router = RouterConfiguration(
            scoring: scoring, renormalizes: section.flag("renormalize", default: base.renormalizes),
            weightScale: section.real("weight_scale", .positive, default: base.weightScale, example: 1),
            jitter: section.real("jitter", .belowOne, default: base.jitter, example: 0.01),
            gumbel: section.flag("gumbel", default: base.gumbel), biasRate: biasRate, cosine: cosine(),
            groupLimit: groupLimit(), nodes: nodes(), annealing: annealing())
        checkAnnealing(router)
        checkNodes(router)
        return router
    }

    /// Whether a group is there, or the preset has it and the recipe does not take it away.
    private func has(_ key: String, _ inherited: Bool) -> Bool {
        section.value(key) != nil || inherited && !section.isNull(key)
    }

    private func cosine() -> CosineConfiguration? {
        guard has("cosine", base.cosine != nil) else { return nil }
        let group = section.section("cosine")
        let base = base.cosine ?? CosineConfiguration()
        let cosine = CosineConfiguration(
            width: group.integer("width", 1...1 << 20, default: base.width, example: 256),
            temperature: group.real("temperature", .positiveFloat, default: base.temperature, example: 0.5),
            floor: group.real("floor", .positiveFloat, default: base.floor, example: 0.01))
        group.require(
            cosine.floor < cosine.temperature, "floor", with: [group.full("temperature")],
            "is \(cosine.floor), and the temperature \(cosine.temperature) begins at or below it",
            "use a floor below \(cosine.temperature), or raise temperature")
        return cosine
    }

    private func groupLimit() -> GroupLimit? {
        guard has("groups", base.groupLimit != nil) else { return nil }
        let group = section.section("groups")
        let limit = GroupLimit(
            groups: group.integer("count", 1...1024, default: base.groupLimit?.groups, example: 4),
            chosen: group.integer("chosen", 1...1024, default: base.groupLimit?.chosen, example: 2),
            score: group.choice("score", default: base.groupLimit?.score ?? .best))
        let flaw = counts.lazy.compactMap { limit.flaw(experts: $0, choices: choices) }.first
        group.require(
            flaw == nil, "count",
            with: ["chosen", "score"].map(group.full) + ["model.experts.count", "model.experts.choices"],
            "is \(limit.groups): \(flaw?.reason ?? "")", flaw?.remedy ?? "")
        return limit
    }

    private func nodes() -> Int? {
        guard let nodes = section.optionalInteger("nodes", 1...1024, default: base.nodes, example: 4) else {
            return nil
        }
        let limit = GroupLimit(groups: nodes, chosen: 1, score: .sum)
        let flaw = counts.lazy.compactMap { limit.flaw(experts: $0, choices: choices) }.first
        section.require(
            flaw == nil, "nodes", with: ["model.experts.count", "model.experts.choices"],
            "is \(nodes): \(flaw?.reason ?? "")", flaw?.remedy ?? "")
        return nodes
    }

    private func checkNodes(_ router: RouterConfiguration) {
        guard router.nodes != nil else { return }
        section.require(
            router.scoring == .softmaxThenTopK, "nodes", with: [section.full("scoring")],
            "are chosen by a softmax, but scoring is \(router.scoring.rawValue)", "use scoring: softmax-top-k")
        let others = [
            ("cosine", router.cosine != nil), ("groups", router.groupLimit != nil),
            ("annealing", router.annealing != nil),
        ]
        for (key, isThere) in others {
            section.require(
                !isThere, "nodes", with: [section.full(key)],
                "have a gate of their own, beside which \(key) cannot stand",
                "keep one of them")
        }
    }

    private func annealing() -> DenseToSparse? {
        guard has("annealing", base.annealing != nil) else { return nil }
        let group = section.section("annealing")
        let base = base.annealing ?? DenseToSparse(steps: 0)
        let annealing = DenseToSparse(
            start: group.real("start", .positiveFloat, default: base.start, example: 2),
            end: group.real("end", .positiveFloat, default: base.end, example: 0.3),
            steps: group.integer(
                "steps", 1...1_000_000_000, default: base.steps > 0 ? base.steps : nil, example: 1000),
            threshold: group.real("threshold", .belowOne, default: base.threshold, example: 0.01))
        group.require(
            annealing.end <= annealing.start, "end", with: [group.full("start")],
            "is \(annealing.end), above start \(annealing.start)", "a temperature falls: use at most \(annealing.start)"
        )
        return annealing
    }

    private func checkAnnealing(_ router: RouterConfiguration) {
        guard router.annealing != nil else { return }
        section.require(
            router.scoring == .softmaxThenTopK, "annealing", with: [section.full("scoring")],
            "is a softmax over all experts, but scoring is \(router.scoring.rawValue)", "use scoring: softmax-top-k")
        section.require(
            !router.gumbel, "annealing", with: [section.full("gumbel")], "has noise of its own beside gumbel: true",
            "use gumbel: false")
        section.require(
            router.groupLimit == nil, "annealing", with: [section.full("groups")],
            "begins with all experts, but groups let a token use a few", "keep one of them")
    }
}

extension YAMLWriter {
    /// What not every router has.
    mutating func parts(of router: RouterConfiguration) {
        if let cosine = router.cosine {
            group("cosine") { writer in
                writer.key("width", "\(cosine.width)")
                writer.key("temperature", "\(cosine.temperature)")
                writer.key("floor", "\(cosine.floor)")
            }
        }
        if let limit = router.groupLimit {
            group("groups") { writer in
                writer.key("count", "\(limit.groups)")
                writer.key("chosen", "\(limit.chosen)")
                writer.key("score", limit.score.rawValue)
            }
        }
        if let nodes = router.nodes { key("nodes", "\(nodes)") }
        if let annealing = router.annealing {
            group("annealing") { writer in
                writer.key("start", "\(annealing.start)")
                writer.key("end", "\(annealing.end)")
                writer.key("steps", "\(annealing.steps)")
                writer.key("threshold", "\(annealing.threshold)")
            }
        }
    }
}
