import ApusExperts

/// Reads what of `model.experts` stands beside the routed experts: the shared expert, and the shortcut by which the routed
/// ones read an earlier state than it does.
struct SharedExpertReader {
    let section: Section
    /// The preset's mixture, whose values stand where the recipe gives none.
    let template: MoEConfiguration?
    /// E, of the mixture with the fewest.
    let count: Int
    /// K.
    let choices: Int
    let isResidual: Bool

    /// Width of the shared expert and how it is added.
    func shared() -> (width: Int, combination: SharedCombination) {
        let width = section.integer(
            "shared_width", 0...1 << 20, default: template?.sharedWidth ?? 0, example: 256)
        let combination = section.choice("shared_combination", default: template?.sharedCombination ?? .sum)
        section.require(
            combination == .sum || width > 0, "shared_combination", with: [section.full("shared_width")],
            "is \(combination.rawValue), but there is no shared expert", "set shared_width, or use sum")
        section.require(
            combination == .sum || !isResidual, "shared_combination", with: [section.full("residual")],
            "is \(combination.rawValue), but a residual expert is mixed already", "use sum, or residual: false")
        return (width, combination)
    }

    /// The shortcut; `nil` without one. Which layers can have it, the list of layers says.
    func shortcut(sharedWidth: Int, _ router: RouterConfiguration, _ losses: RouterLosses) -> ShortcutConfiguration? {
        let base = template?.shortcut
        guard section.value("shortcut") != nil || base != nil && !section.isNull("shortcut") else { return nil }
        let group = section.section("shortcut")
        let standard = base ?? ShortcutConfiguration()
        let number = group.integer("position", 1...3, default: standard.position.rawValue, example: 2)
        let shortcut = ShortcutConfiguration(
            position: ShortcutConfiguration.Position(rawValue: number) ?? standard.position,
            isDual: group.flag("dual", default: standard.isDual))
        if shortcut.isDual { checkDual(group, sharedWidth: sharedWidth, router, losses) }
        return shortcut
    }

    private func checkDual(
        _ group: Section, sharedWidth: Int, _ router: RouterConfiguration, _ losses: RouterLosses
    ) {
        func require(_ holds: Bool, with key: String, _ reason: String, _ remedy: String) {
            group.require(
                holds, "dual", with: [section.full(key)], "is true, but \(reason)", "\(remedy), or dual: false")
        }
        require(
            choices * 2 <= count, with: "choices",
            "a layer of \(count) experts has no two times \(choices) different ones for a token",
            count < 2 ? "use at least 2 experts" : "use choices: \(count / 2)")
        require(
            sharedWidth == 0, with: "shared_width", "the experts read the present state in a shared expert's place",
            "use shared_width: 0")
        require(
            !isResidual, with: "residual", "the experts read the present state in a residual expert's place",
            "use residual: false")
        require(
            router.groupLimit == nil && router.nodes == nil && router.annealing == nil, with: "router",
            "its second choice is from all experts but the first one's",
            "take groups, nodes and annealing from the router")
        require(
            losses.scope == .layer, with: "losses", "losses.scope pooled counts one pass of each layer",
            "use losses.scope: layer")
    }
}
