import ApusExperts
import ApusKernels

/// Reads `model.experts`: what all mixture-of-experts layers share.
struct ExpertsReader {
    let section: Section
    /// The preset's mixture, whose values stand where the recipe gives none.
    let template: MoEConfiguration?
    let activation: Activation

    /// The layer, with the smallest of `counts`, which are the experts of all of them.
    func layer(counts: [Int]) -> MoEConfiguration {
        let leastCount = counts.min() ?? 1
        let choices = section.integer("choices", 1...1024, default: template?.choices, example: 2)
        section.require(
            choices <= leastCount, "choices", with: [section.full("count")],
            "is \(choices), more than the \(leastCount) experts of a layer", "use at most \(leastCount), or raise count"
        )
        let policy = self.policy()
        let bank = section.choice("bank", default: template?.bank ?? .grouped)
        section.require(
            bank != .padded || policy != .dropless, "bank", with: ["policy", "policy.capacity"].map(section.full),
            "is padded, which needs a capacity", "set policy: {capacity: 1.25}, or use bank: grouped")
        let width = section.integer("width", 1...1 << 20, default: template?.width, example: 256)
        let block = section.integer("block_size", 1...4096, default: template?.blockSize ?? 128, example: 128)
        section.require(
            bank != .blockSparse || width % block == 0, "width", with: ["bank", "block_size"].map(section.full),
            "is \(width), no multiple of block_size \(block), of which bank: block-sparse needs whole ones",
            "the nearest that works is \(nearestMultiple(of: block, to: width))")
        let router = RouterReader(
            section: section.section("router"), base: template?.router ?? RouterConfiguration(), counts: counts,
            choices: choices
        ).router()
        let losses = losses()
        section.require(
            router.nodes == nil || losses.scope == .layer, "losses",
            with: ["losses.scope", "router.nodes"].map(section.full),
            "have scope pooled, but router.nodes has a balance loss for each of its levels", "use scope: layer")
        section.require(
            router.annealing == nil || losses.scope == .layer, "losses",
            with: ["losses.scope", "router.annealing"].map(section.full),
            "have scope pooled, which counts the same number of experts for each token, but router.annealing changes it",
            "use scope: layer")
        let dropout = section.real("dropout", .belowOne, default: template?.dropout ?? 0, example: 0.4)
        section.require(
            dropout == 0 || bank != .blockSparse, "dropout", with: [section.full("bank")],
            "is \(dropout), but bank block-sparse drops nothing of its activations", "use 0, or bank: grouped")
        if case .capacity(_, _, .importance, _) = policy {
            let most = TokenPolicy.DropOrder.mostImportanceChoices
            section.require(
                choices <= most, "choices", with: ["policy", "policy.order"].map(section.full),
                "is \(choices), but policy.order importance ranks at most \(most) of a token", "use at most \(most)")
        }
        let isResidual = section.flag("residual", default: template?.isResidual ?? false)
        let reader = SharedExpertReader(
            section: section, template: template, count: leastCount, choices: choices, isResidual: isResidual)
        let (sharedWidth, combination) = reader.shared()
        return MoEConfiguration(
            experts: leastCount, choices: choices, width: width,
            activation: section.choice("activation", default: template?.activation ?? activation), router: router,
            policy: policy, bank: bank, blockSize: block, losses: losses,
            sharedWidth: sharedWidth, sharedCombination: combination,
            shortcut: reader.shortcut(sharedWidth: sharedWidth, router, losses), isResidual: isResidual,
            dropout: dropout)
    }

    private func policy() -> TokenPolicy {
        guard let node = section.value("policy") else { return template?.policy ?? .dropless }
        if case .scalar(let word, _) = node.content {
            if word == "dropless" { return .dropless }
            section.flaw(
                "policy", "is \(node.shown)", "dropless or a group such as {capacity: 1.25, order: position} is needed")
            return .dropless
        }
        let policy = section.section("policy")
        guard section.log.areSound([section.full("policy")]) else { return .dropless }
        var base: (factor: Float?, minimum: Int, order: TokenPolicy.DropOrder, evaluation: Float?)
        base = (nil, 4, .position, nil)
        if case .capacity(let factor, let minimum, let order, let evaluation) = template?.policy {
            base = (factor, minimum, order, evaluation)
        }
        return .capacity(
            factor: policy.real("capacity", .any, default: base.factor, example: 1.25),
            minimum: policy.integer("minimum", 1...1 << 20, default: base.minimum, example: 4),
            order: policy.choice("order", default: base.order),
            evaluation: policy.optionalReal("evaluation", .any, default: base.evaluation, example: 2))
    }

    private func losses() -> RouterLosses {
        let section = section.section("losses")
        let base = template?.losses ?? RouterLosses()
        return RouterLosses(
            balance: section.real("balance", .nonNegative, default: base.balance, example: 0.01),
            scope: section.choice("scope", default: base.scope),
            z: section.real("z", .nonNegative, default: base.z, example: 0.001),
            importance: section.real("importance", .nonNegative, default: base.importance, example: 0.01))
    }
}
