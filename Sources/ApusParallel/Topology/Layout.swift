/// The grid of ranks of a run (DeepSpeed-TED, arXiv 2303.06318; Z-code M3, arXiv 2109.10465).
///
/// Rank `d Gt + t` has the tensor coordinate `t` and the data coordinate `d`: ranks are laid out tensor innermost, then
/// expert, then data. For whatever is no expert the grid is Gt x Gd, `Gt Gd = G`. For the experts of a layer, the ranks
/// of equal tensor coordinate, a data group, are cut into expert groups of Ge ranks, so that `Gd = Ge (Gd / Ge)`: the
/// ranks of an expert group divide one copy of the experts among them, and the ranks with the same place in their
/// expert groups, an expert-data group, hold the same experts. Ge is general (the paper has Ge = E), and may differ
/// from layer to layer.
///
/// Without expert tensor parallelism the experts' grid has no tensor dimension: expert groups are cut from all G ranks,
/// as if the tensor degree were 1.
///
/// A value of this type is sound: only ``LayoutConfiguration/layout(ranks:for:)`` makes one.
public struct Layout: Sendable, Equatable {
    /// G, the size of the world.
    public let ranks: Int
    /// Gt, the tensor degree.
    public let tensor: Int
    /// Ge, the expert degree, of all layers or of each.
    public let expert: LayoutConfiguration.ExpertDegree
    /// Whether the ranks of a tensor group share the experts' matrices.
    public let expertTensor: Bool
    /// Which neighbours an expert group takes.
    public let order: LayoutConfiguration.Order

    init(
        ranks: Int, tensor: Int, expert: LayoutConfiguration.ExpertDegree, expertTensor: Bool,
        order: LayoutConfiguration.Order
    ) {
        self.ranks = ranks
        self.tensor = tensor
        self.expert = expert
        self.expertTensor = expertTensor
        self.order = order
    }

    /// Everything on one rank.
    public static let single = Layout(
        ranks: 1, tensor: 1, expert: .uniform(1), expertTensor: true, order: .expertBeforeData)

    /// Gd, the data degree.
    public var data: Int { ranks / tensor }

    /// Ge of a layer; 1 for a layer without experts where layers have degrees of their own.
    public func expertDegree(layer: Int) -> Int {
        switch expert {
        case .uniform(let degree): degree
        case .perLayer(let degrees): degrees[layer]
        }
    }

    /// The expert degrees that occur, each once, ascending.
    public var expertDegrees: [Int] {
        switch expert {
        case .uniform(let degree): [degree]
        case .perLayer(let degrees): Set(degrees).sorted()
        }
    }

    /// Ranks that a line of expert groups is cut from: a data group, or the world without expert tensor parallelism.
    public var expertLine: Int { expertTensor ? data : ranks }

    /// Ranks that share one matrix of an expert, or of a slice of it.
    public var expertTensorDegree: Int { expertTensor ? tensor : 1 }

    /// Where `rank` stands.
    public func place(of rank: Int) -> RankPlace { RankPlace(layout: self, rank: rank) }

    /// The places of all ranks, in their order.
    public var places: [RankPlace] { (0..<ranks).map(place) }

    /// The keys and values that give this layout.
    public var configuration: LayoutConfiguration {
        LayoutConfiguration(tensor: tensor, expert: expert, data: data, expertTensor: expertTensor, order: order)
    }

    /// Checks that the layout fits a model and its batch.
    ///
    /// - Throws: ``LayoutError``, which names the nearest layout that works.
    public func check(_ workload: Workload) throws(LayoutError) {
        _ = try configuration.layout(ranks: ranks, for: workload)
    }
}

extension Layout: CustomStringConvertible {
    /// `16 ranks as tensor 2, expert 4, data 8`, and what is not the default.
    public var description: String {
        let degree =
            switch expert {
            case .uniform(let degree): "\(degree)"
            case .perLayer(let degrees): "[\(degrees.map(String.init).joined(separator: ", "))]"
            }
        let switches = [
            expertTensor ? nil : "expert_tensor false",
            order == .expertBeforeData ? nil : "order \(order.rawValue)",
        ]
        return
            (["\(ranks) \(ranks == 1 ? "rank" : "ranks") as tensor \(tensor)", "expert \(degree)", "data \(data)"]
            + switches.compactMap(\.self)).joined(separator: ", ")
    }
}
