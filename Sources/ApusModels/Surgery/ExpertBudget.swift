import ApusExperts

/// How many experts stay.
public enum ExpertBudget: Sendable, Equatable {
    /// So many in each layer; all of a layer that has no more.
    case eachLayer(Int)
    /// This share of all experts of the model, 0 to 1, wherever they are; in each layer as many as a token chooses at least.
    case share(Double)

    /// How many experts stay of so many, in the nearest whole number; for ``share(_:)``.
    private static func count(_ share: Double, of all: Int) -> Int { Int((share * Double(all)).rounded()) }

    /// - Throws: ``SurgeryError`` where a layer would have fewer experts than a token chooses, or nothing would change.
    public func check(_ model: ModelConfiguration, folder: String) throws(SurgeryError) {
        let layers = model.mixtureLayers
        guard let most = layers.compactMap({ model.moe(layer: $0)?.experts }).max() else {
            throw .noMixture(folder: folder)
        }
        switch self {
        case .eachLayer(let count):
            for layer in layers {
                guard let moe = model.moe(layer: layer), count < moe.leastExperts else { continue }
                throw .belowChoices(folder: folder, layer: layer, kept: count, choices: moe.leastExperts)
            }
            if count >= most { throw .nothingToPrune(folder: folder, most: most) }
        case .share(let share):
            guard share > 0, share <= 1 else {
                throw .wrongOption(
                    name: "the share of experts to keep", found: "\(share)", wanted: "above 0 and at most 1")
            }
            let (all, needed) = layers.reduce((0, 0)) { sum, layer in
                guard let moe = model.moe(layer: layer) else { return sum }
                return (sum.0 + moe.experts, sum.1 + moe.leastExperts)
            }
            let kept = Self.count(share, of: all)
            if kept < needed {
                throw .belowAllChoices(folder: folder, kept: kept, experts: all, needed: needed)
            }
            if kept == all { throw .nothingToPrune(folder: folder, most: most) }
        }
    }

    /// The experts that stay of each layer, ascending: those with the highest scores, the first of equals.
    ///
    /// - Parameter scores: For each mixture, by layer, one for each expert.
    func choose(_ scores: [Int: [Double]], _ model: ModelConfiguration) -> [Int: [Int]] {
        let ranked = scores.mapValues { scores in
            scores.indices.sorted { (-scores[$0], $0) < (-scores[$1], $1) }
        }
        switch self {
        case .eachLayer(let count): return ranked.mapValues { $0.prefix(count).sorted() }
        case .share(let share):
            let all = scores.values.reduce(0) { $0 + $1.count }
            // What a token chooses stays first; the rest go by their scores, whichever layer they are of.
            var kept: [Int: [Int]] = [:]
            var rest: [(score: Double, layer: Int, expert: Int)] = []
            for (layer, experts) in ranked {
                let least = model.moe(layer: layer)?.leastExperts ?? 0
                kept[layer] = Array(experts.prefix(least))
                rest += experts.dropFirst(least).map { (scores[layer]?[$0] ?? 0, layer, $0) }
            }
            rest.sort { (-$0.score, $0.layer, $0.expert) < (-$1.score, $1.layer, $1.expert) }
            let room = Self.count(share, of: all) - kept.values.reduce(0) { $0 + $1.count }
            for choice in rest.prefix(max(room, 0)) { kept[choice.layer, default: []].append(choice.expert) }
            return kept.mapValues { $0.sorted() }
        }
    }
}
