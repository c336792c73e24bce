import ApusExperts
import ApusModels
import ApusNN
public import ApusParallel
import ApusTensor
public import ApusTraining

// Shape letters: T tokens, D model width, E experts, K choices per token, C capacity, P ranks of a tensor group.

/// The calls and bytes that one rank is expected to make in a training step, written down from the papers' account:
/// DeepSpeed-TED sections 3 and 5 for tensor and expert parallelism, ZeRO (Rajbhandari et al. 2020) section 5 for
/// gradients and weights. Nothing is read from a run, except where rows are not padded how many each expert got.
public struct TEDTraffic: Sendable {
    /// The recipe.
    public let recipe: Recipe
    /// Its layout.
    public let layout: Layout
    /// The mechanisms that are on.
    public let switches: TEDSwitches

    /// Expectations of a recipe on a layout.
    ///
    /// - Throws: ``TEDError/notCounted(_:)`` for what has no formula here.
    public init(_ recipe: Recipe, on layout: Layout) throws(TEDError) {
        try TEDTraffic.check(recipe, layout)
        self.recipe = recipe
        self.layout = layout
        switches = TEDSwitches(recipe)
    }

    /// Sizes of a pass of one rank.
    public var sizes: PassSizes {
        PassSizes(
            tokens: sequencesOfPass * recipe.data.sequenceLength, width: recipe.model.width,
            elementBytes: recipe.training.precision.modelType.byteCount, tensor: layout.tensor)
    }

    /// Passes of a rank in a step.
    public var passes: Int { recipe.training.batch / (sequencesOfPass * layout.data) }

    private var sequencesOfPass: Int { min(recipe.training.microBatch, recipe.training.batch / layout.data) }

    /// What a block sends in a step: attention, and its dense layer or its mixture.
    ///
    /// - Parameter loads: The rows of a mixture, of each pass; may be `nil` where they are padded, for the capacity
    ///   tells.
    public func block(_ layer: Int, loads: [RoutedLoad]? = nil) -> Traffic {
        let divided = PassTraffic.dividedLayer(sizes)
        guard let moe = recipe.model.moe(layer: layer) else {
            return (divided + divided).total(runs: switches.forwardRuns) * passes
        }
        let loads = loads ?? Array(repeating: paddedLoad(moe, layer: layer), count: passes)
        // A shared and a residual expert are dense layers beside the others.
        let beside = (moe.sharedWidth > 0 ? 1 : 0) + (moe.isResidual ? 1 : 0)
        let dense = (0..<beside).reduce(divided) { sum, _ in sum + divided }
        return loads.reduce(Traffic()) { sum, load in
            let isPadded = moe.bank == .padded
            let experts =
                isLocal
                ? PassTraffic.localExperts(sizes, load, isPadded: isPadded)
                : PassTraffic.experts(sizes, load, isPadded: isPadded, choices: moe.choices, switches)
            return sum + (dense + experts).total(runs: switches.forwardRuns)
        }
    }

    /// Whether every rank has all experts, or its tensor part of all.
    private var isLocal: Bool { layout.expertDegrees == [1] }

    /// The rows of a padded mixture.
    private func paddedLoad(_ moe: MoEConfiguration, layer: Int) -> RoutedLoad {
        guard case .capacity(let factor, let minimum, _, _) = moe.policy, moe.bank == .padded, factor > 0 else {
            preconditionFailure("rows of layer \(layer) are not padded: their number is for the router to say")
        }
        let group = recipe.training.routingGroup * recipe.data.sequenceLength
        // C = max(ceil(factor K T / E), minimum), T the tokens of a routing group.
        let wanted = (Float(Double(group) / Double(moe.experts)) * (factor * Float(moe.choices))).rounded(.up)
        let capacity = min(max(Int(min(wanted, Float(group))), minimum), group)
        return .padded(
            capacity: capacity * (sequencesOfPass / recipe.training.routingGroup), experts: moe.experts,
            expertDegree: layout.expertDegree(layer: layer),
            parts: switches.dropsDuplicates && !isLocal ? layout.tensor : 1)
    }

    /// What embedding and head send in a step; blocks run again in backward, these do not.
    public var ends: Traffic { (PassTraffic.embedding(sizes) + PassTraffic.head(sizes)).total(runs: 1) * passes }

    /// The sums of gradients, and the collection of the weights that each rank has stepped its share of.
    ///
    /// - Parameter rank: Whose: shares of a vocabulary that does not divide differ.
    public func gradients(rank: Int) -> Traffic {
        let zero = recipe.parallel.zero
        let reductions = zero == .gradients ? passes : 1
        return TEDMemory(recipe, on: layout, rank: rank).groups.reduce(into: Traffic()) { traffic, group in
            guard group.holders > 1 else { return }
            let kind: Traffic.Group = group.role == .expert ? .expertData : .data
            for part in group.parts {
                traffic.add(
                    kind, zero == .none ? .allReduce : .reduceScatter, calls: reductions,
                    bytes: part * group.gradientBytes)
                if zero > .none { traffic.add(kind, .allGather, bytes: part * group.weightBytes) }
            }
        }
    }

    /// The numbers of target tokens that ranks with other sequences tell each other: 64 bits each.
    public var counts: Traffic {
        var traffic = Traffic()
        if layout.data > 1 { traffic.add(.data, .numbers, bytes: 8 * layout.data) }
        return traffic
    }

    /// All that a step sends, but for the totals over the world, which are a few numbers for each expert.
    ///
    /// - Parameter loads: The rows of each mixture, as ``block(_:loads:)`` takes them.
    public func step(rank: Int, loads: [Int: [RoutedLoad]] = [:]) -> Traffic {
        recipe.model.feedForward.indices.reduce(ends + gradients(rank: rank) + counts) {
            $0 + block($1, loads: loads[$1])
        }
    }
}

extension TEDTraffic {
    private static func check(_ recipe: Recipe, _ layout: Layout) throws(TEDError) {
        let (parallel, model) = (recipe.parallel, recipe.model)
        let hasShortcut = model.feedForward.indices.contains { model.moe(layer: $0)?.shortcut != nil }
        let refusals: [(applies: Bool, reason: String)] = [
            (
                parallel.sequenceParallel,
                "layout.sequence_parallel moves the residual stream too: switch it off"
            ),
            (
                parallel.ranksPerNode != nil,
                "layout.ranks_per_node makes two all-to-alls of one: leave it out"
            ),
            (
                !layout.expertTensor && layout.tensor > 1,
                "layout.expert_tensor: false has no bridge to count: leave it out"
            ),
            (
                model.queryKeyNorm != .none && layout.tensor > 1,
                "model.query_key_norm adds sums over the tensor group: use none"
            ),
            (
                model.latent != nil && layout.tensor > 1,
                "model.latent has projections that are whole on each rank of a tensor group: use layout.tensor 1"
            ),
            (hasShortcut, "model.experts.shortcut may use the experts of a layer twice: leave it out"),
        ]
        let reason = refusals.first { $0.applies }?.reason
        if let reason { throw .notCounted(reason) }
    }
}
