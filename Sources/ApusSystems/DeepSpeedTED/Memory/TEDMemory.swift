import ApusExperts
import ApusModels
public import ApusNN
public import ApusParallel
public import ApusTraining

// Shape letters: G ranks, P ranks of a tensor group (Gt), Ge ranks of an expert group, Gd data ranks, E experts.

/// The bytes of training state that a rank holds (DeepSpeed-TED section 3.2; ZeRO, Rajbhandari et al. 2020, section 3),
/// for a general expert degree.
///
/// What is no expert is divided by the tensor degree and held by Gd ranks, which under ZeRO divide its optimizer state;
/// experts are divided by P Ge and held by Gd / Ge ranks. ``paper(nonExpert:expert:_:precision:zero:)`` is the same
/// without anything that a program adds: norms and routers that every tensor rank holds, `f32` routers, and padding.
public struct TEDMemory: Sendable {
    /// The rank's buffers: dense parameters that decay, those that do not, routers, and experts of each degree.
    public let groups: [StateGroup]

    /// The state of one rank.
    public init(_ recipe: Recipe, on layout: Layout, rank: Int) {
        let place = layout.place(of: rank)
        let isDivided = recipe.parallel.zero > .none
        var layers: [Kind: [(layer: Int?, count: Int)]] = [:]
        for parameter in recipe.model.parameterInventory() {
            let kind = Kind(parameter, of: recipe, layout)
            let count = TEDMemory.held(parameter, of: recipe.model, layout, place)
            if let last = layers[kind]?.indices.last, layers[kind]?[last].layer == parameter.layer {
                layers[kind]?[last].count += count
            } else if count > 0 {
                layers[kind, default: []].append((parameter.layer, count))
            }
        }
        groups = layers.sorted { $0.key < $1.key }.map { kind, layers in
            StateGroup(
                role: kind.role, decays: kind.decays, counts: StateGroup.parts(of: layers.map(\.count)),
                holders: kind.degree.map { layout.size(of: .expertData(degree: $0)) } ?? layout.data,
                isDivided: isDivided, recipe.training.precision)
        }
    }

    /// Bytes with every gradient in memory, as at the end of a backward pass that nobody has reduced yet.
    public var whole: StateBytes { bytes(\.elements) }

    /// Bytes after the gradients' sums were divided: under ZeRO a rank keeps those of the state that it owns.
    public var reduced: StateBytes { bytes(\.ownElements) }

    private func bytes(_ gradients: KeyPath<StateGroup, Int>) -> StateBytes {
        groups.reduce(into: StateBytes(parameters: 0, gradients: 0, optimizerState: 0)) { sum, group in
            sum.parameters += group.elements * group.weightBytes
            sum.gradients += group[keyPath: gradients] * group.gradientBytes
            sum.optimizerState += group.ownElements * group.stateBytes
        }
    }

    /// Which buffer a parameter is in.
    private struct Kind: Hashable, Comparable {
        let role: ParameterRole
        let decays: Bool
        /// What the ranks of a tensor group have of it: 0 parts, 1 all and the same gradient, 2 all and parts of the
        /// gradient.
        let tensor: Int
        /// Of experts, ranks that divide them.
        let degree: Int?

        init(_ parameter: ParameterDescription, of recipe: Recipe, _ layout: Layout) {
            role = parameter.role
            decays = parameter.shape.count > 1
            let isOfHeads = parameter.name.hasSuffix("q_norm.weight") || parameter.name.hasSuffix("k_norm.weight")
            let isPartial = parameter.role == .dense && (isOfHeads || recipe.parallel.sequenceParallel)
            tensor =
                layout.tensor == 1 || parameter.role == .expert || TEDMemory.isDivided(parameter, of: recipe.model)
                ? 0 : isPartial ? 2 : 1
            degree = parameter.role == .expert ? parameter.layer.map { layout.expertDegree(layer: $0) } : nil
        }

        private var order: [Int] {
            [ParameterRole.allCases.firstIndex(of: role) ?? 0, decays ? 0 : 1, tensor, degree ?? 0]
        }

        static func < (left: Kind, right: Kind) -> Bool { left.order.lexicographicallyPrecedes(right.order) }
    }

    /// Elements of a parameter that a rank holds.
    private static func held(
        _ parameter: ParameterDescription, of model: ModelConfiguration, _ layout: Layout, _ place: RankPlace
    ) -> Int {
        switch parameter.role {
        case .router: return parameter.count
        case .expert:
            let degree = parameter.layer.map { layout.expertDegree(layer: $0) } ?? 1
            let experts = parameter.layer.flatMap { model.moe(layer: $0)?.experts } ?? 1
            guard let expert = parameter.expert else { return 0 }
            let share = ExpertShare(place: place.expert(degree: degree), degree: degree, experts: experts)
            guard share.experts.contains(expert) else { return 0 }
            return parameter.count / (share.slices * layout.expertTensorDegree)
        case .dense:
            if parameter.name.hasPrefix("model.embed_tokens") || parameter.name.hasPrefix("lm_head") {
                // Shares of the vocabulary differ by one entry at most.
                let (entries, width) = (parameter.shape[0], parameter.shape[1])
                let end = entries * (place.tensor + 1) / layout.tensor
                return (end - entries * place.tensor / layout.tensor) * width
            }
            return isDivided(parameter, of: model) ? parameter.count / layout.tensor : parameter.count
        }
    }

    /// Whether the tensor group's ranks have parts of a dense parameter: matrices, and what belongs to heads.
    private static func isDivided(_ parameter: ParameterDescription, of model: ModelConfiguration) -> Bool {
        guard parameter.role == .dense, !parameter.name.hasPrefix("model.embed_positions") else { return false }
        if parameter.shape.count > 1 { return true }
        let norms = model.queryKeyNorm == .projection ? ["q_norm.weight", "k_norm.weight"] : []
        return (["q_proj.bias", "k_proj.bias", "v_proj.bias"] + norms).contains { parameter.name.hasSuffix($0) }
    }
}

extension TEDMemory {
    /// The degrees that the closed form knows.
    public struct Degrees: Sendable, Equatable {
        /// G.
        public let ranks: Int
        /// Gt.
        public let tensor: Int
        /// Ge.
        public let expert: Int

        /// Those of a layout with one expert degree.
        public init(ranks: Int, tensor: Int, expert: Int) {
            self.ranks = ranks
            self.tensor = tensor
            self.expert = expert
        }
    }

    /// The closed form: `(w + g) (N / Gt + X / (Gt Ge)) + s (N + X) / G` bytes of N parameters that are no expert's and
    /// X that are, for w bytes of a weight, g of a gradient and s of its state; without ZeRO the state is divided like
    /// the weights. Of a base of P parameters with experts in every second layer N is 2P/3 and X is E P/3.
    public static func paper(
        nonExpert: Int, expert: Int, _ degrees: Degrees, precision: Precision, zero: ZeROStage
    ) -> StateBytes {
        let group = StateGroup(
            role: .dense, decays: true, counts: [1], holders: 1, isDivided: false, precision)
        let held = Double(nonExpert) / Double(degrees.tensor) + Double(expert) / Double(degrees.tensor * degrees.expert)
        let owned = zero > .none ? Double(nonExpert + expert) / Double(degrees.ranks) : held
        return StateBytes(
            parameters: Int(held * Double(group.weightBytes)), gradients: Int(held * Double(group.gradientBytes)),
            optimizerState: Int(owned * Double(group.stateBytes)))
    }
}
