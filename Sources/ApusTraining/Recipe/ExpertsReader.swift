import ApusExperts
import ApusKernels

/// Reads `model.experts`: what all mixture-of-experts layers share.
struct ExpertsReader {
    let section: Section
    /// The preset's mixture, whose values stand where the recipe gives none.
    let template: MoEConfiguration?
    let activation: Activation

    /// The layer, with the smallest number of experts that one of them has.
    func layer(leastCount: Int) -> MoEConfiguration {
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
        return MoEConfiguration(
            experts: leastCount, choices: choices, width: width,
            activation: section.choice("activation", default: template?.activation ?? activation), router: router(),
            policy: policy, bank: bank, blockSize: block, losses: losses(),
            sharedWidth: section.integer(
                "shared_width", 0...1 << 20, default: template?.sharedWidth ?? 0, example: 256),
            isResidual: section.flag("residual", default: template?.isResidual ?? false))
    }

    private func router() -> RouterConfiguration {
        let section = section.section("router")
        let base = template?.router ?? RouterConfiguration()
        let scoring = section.choice("scoring", default: base.scoring)
        // A bias rate from a preset goes when the recipe turns to another scoring; one that was asked for does not.
        let biasRate = section.real(
            "bias_rate", .belowOne, default: scoring == .sigmoid ? base.biasRate : 0, example: 0.001)
        section.require(
            biasRate == 0 || scoring == .sigmoid, "bias_rate", with: [section.full("scoring")],
            "is \(biasRate), which scoring \(scoring.rawValue) has no bias for", "use 0, or scoring: sigmoid")
        return RouterConfiguration(
            scoring: scoring, renormalizes: section.flag("renormalize", default: base.renormalizes),
            weightScale: section.real("weight_scale", .positive, default: base.weightScale, example: 1),
            jitter: section.real("jitter", .belowOne, default: base.jitter, example: 0.01),
            gumbel: section.flag("gumbel", default: base.gumbel), biasRate: biasRate)
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
        var base: (factor: Float?, minimum: Int, order: TokenPolicy.DropOrder) = (nil, 4, .position)
        if case .capacity(let factor, let minimum, let order) = template?.policy { base = (factor, minimum, order) }
        return .capacity(
            factor: policy.real("capacity", .positive, default: base.factor, example: 1.25),
            minimum: policy.integer("minimum", 1...1 << 20, default: base.minimum, example: 4),
            order: policy.choice("order", default: base.order))
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
