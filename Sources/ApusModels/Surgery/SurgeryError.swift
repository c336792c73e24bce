import ApusTensor

/// Why stored models cannot be made into another: told before anything is written.
public enum SurgeryError: Error, Sendable, Equatable {
    /// A layer was named that the model has not.
    case noSuchLayer(folder: String, layer: Int, layers: Int)
    /// A layer was chosen that is a mixture already.
    case notDense(folder: String, layer: Int, experts: Int)
    /// No layer is dense, or none of those that the choice takes.
    case nothingToUpcycle(folder: String, layers: Int)
    /// The model has no mixture of experts.
    case noMixture(folder: String)
    /// Two models differ in more than their numbers of experts; `key` is one of `config.json`, or a file's name.
    case different(first: String, second: String, key: String, own: String, other: String)
    /// What a model is compared with is not the same model at another step.
    case otherBase(folder: String, base: String, key: String, own: String, other: String)
    /// A layer would have fewer experts than a token chooses.
    case belowChoices(folder: String, layer: Int, kept: Int, choices: Int)
    /// All layers together would have fewer experts than their tokens choose.
    case belowAllChoices(folder: String, kept: Int, experts: Int, needed: Int)
    /// Every expert would stay.
    case nothingToPrune(folder: String, most: Int)
    /// A tensor of a router that nobody has said how to cut.
    case unknownRouter(folder: String, tensor: String)
    /// A layer has no experts of its own.
    case sharedExperts(folder: String, layer: Int, owner: Int)
    /// A layer's experts are chosen by groups, which are runs of their numbers.
    case groupedExperts(folder: String, layer: Int, groups: Int)
    /// A value outside its range.
    case wrongOption(name: String, found: String, wanted: String)
}

extension SurgeryError: CustomStringConvertible {
    /// One line: what is wrong, where, and what would work.
    public var description: String {
        switch self {
        case .noSuchLayer(let folder, let layer, let layers):
            "\(quoted(folder)) has no layer \(layer): its \(layers) layers are 0 to \(layers - 1)"
        case .notDense(let folder, let layer, let experts):
            "\(quoted(folder)): layer \(layer) is a mixture of \(experts) experts already; choose layers that are dense"
        case .nothingToUpcycle(let folder, let layers):
            "\(quoted(folder)): none of the chosen ones of its \(layers) layers is dense; name dense layers with --layers"
        case .noMixture(let folder):
            "\(quoted(folder)) has no mixture of experts; 'apus upcycle' makes one of a dense model"
        case .different(let first, let second, let key, let own, let other):
            "\(quoted(first)) and \(quoted(second)) do not fit together: \(key) is \(own) in the first and \(other) in the "
                + "second; numbers of experts alone may differ"
        case .otherBase(let folder, let base, let key, let own, let other):
            "\(quoted(folder)) cannot have begun as \(quoted(base)): \(key) is \(own) in the first and \(other) in the second; "
                + "give a checkpoint of the same model"
        case .belowChoices(let folder, let layer, let kept, let choices):
            "\(quoted(folder)): layer \(layer) would keep \(plural(kept, "expert")), fewer than the \(choices) that each "
                + "token goes through; keep at least \(choices)"
        case .belowAllChoices(let folder, let kept, let experts, let needed):
            "\(quoted(folder)): \(kept) of \(experts) experts are fewer than the \(needed) that the tokens of all layers "
                + "choose; keep a larger share, at least \(shareText(needed, of: experts))"
        case .nothingToPrune(let folder, let most):
            "\(quoted(folder)): every expert would stay, for no layer has more than \(plural(most, "expert")); keep fewer"
        case .unknownRouter(let folder, let tensor):
            "\(quoted(folder)): \(quoted(tensor)) is of a router whose experts cannot be changed; "
                + "only linear routers, with or without a selection bias, can"
        case .sharedExperts(let folder, let layer, let owner):
            "\(quoted(folder)): layer \(layer) computes with the experts of layer \(owner), which cannot be changed for one "
                + "alone; give a model whose layers have experts of their own"
        case .groupedExperts(let folder, let layer, let groups):
            "\(quoted(folder)): the router of layer \(layer) chooses among \(groups) groups of experts, which other numbers of "
                + "experts would mix up; give a model whose routers choose among all experts"
        case .wrongOption(let name, let found, let wanted):
            "\(name) is \(found); it must be \(wanted)"
        }
    }

    private func plural(_ count: Int, _ noun: String) -> String { "\(count) \(noun)\(count == 1 ? "" : "s")" }

    /// The least share in hundredths that keeps `needed` of `all`.
    private func shareText(_ needed: Int, of all: Int) -> String {
        "\(Double((needed * 100 + all - 1) / all) / 100)"
    }
}
