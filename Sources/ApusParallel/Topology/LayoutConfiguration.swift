/// How the ranks of a run share its work, as a recipe says it: the group of keys `layout`.
///
/// It does not say on how many ranks the run is started. ``layout(ranks:for:)`` puts the two together, or refuses.
public struct LayoutConfiguration: Sendable, Equatable {
    /// How many ranks the experts of a layer are divided among.
    public enum ExpertDegree: Sendable, Equatable {
        /// The same number in every layer that has experts.
        case uniform(Int)
        /// A number for each layer of the model, 1 for a layer without experts.
        case perLayer([Int])
    }

    /// Which neighbours an expert group takes.
    public enum Order: String, Sendable, CaseIterable {
        /// Neighbours hold different experts of one copy, so that tokens travel short ways.
        case expertBeforeData = "expert-before-data"
        /// Neighbours hold copies of the same experts, so that their gradients travel short ways (D + E).
        case dataBeforeExpert = "data-before-expert"
    }

    /// Gt: ranks that share each matrix and hold the same tokens. Key `layout.tensor`.
    public var tensor: Int
    /// Ge: ranks that share the experts of a layer. Key `layout.expert`.
    public var expert: ExpertDegree
    /// Gd: ranks that hold different sequences, each with its tensor group; `nil` for all that there are. Key
    /// `layout.data`.
    public var data: Int?
    /// Whether the ranks of a tensor group share the experts' matrices as well. When they do not, experts are whole and
    /// each of these ranks takes part in expert and data parallelism for itself. Key `layout.expert_tensor`.
    public var expertTensor: Bool
    /// Which neighbours an expert group takes. Key `layout.order`.
    public var order: Order

    /// Data parallelism alone, unless told otherwise.
    public init(
        tensor: Int = 1, expert: ExpertDegree = .uniform(1), data: Int? = nil, expertTensor: Bool = true,
        order: Order = .expertBeforeData
    ) {
        self.tensor = tensor
        self.expert = expert
        self.data = data
        self.expertTensor = expertTensor
        self.order = order
    }

    /// The layout of a run on `ranks` ranks.
    ///
    /// - Parameters:
    ///   - ranks: The size of the world.
    ///   - workload: The model and the batch that the layout must fit; `nil` checks the grid of ranks alone.
    /// - Throws: ``LayoutError``, which names the nearest layout that works.
    public func layout(ranks: Int, for workload: Workload? = nil) throws(LayoutError) -> Layout {
        if let flaw = flaw(ranks: ranks, workload) {
            throw LayoutError(
                key: flaw.key, reason: flaw.reason, alternative: flaw.alternative,
                nearest: nearestLayout(ranks: ranks, for: workload))
        }
        return Layout(ranks: ranks, tensor: tensor, expert: expert, expertTensor: expertTensor, order: order)
    }
}
