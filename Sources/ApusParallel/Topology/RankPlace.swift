/// Where a rank stands in a layout.
public struct RankPlace: Sendable, Equatable {
    /// The layout.
    public let layout: Layout
    /// The rank in the world.
    public let rank: Int

    init(layout: Layout, rank: Int) {
        precondition((0..<layout.ranks).contains(rank), "rank \(rank) of \(layout.ranks)")
        self.layout = layout
        self.rank = rank
    }

    /// Which part of each matrix it holds, below ``Layout/tensor``.
    public var tensor: Int { rank % layout.tensor }

    /// Which part of the batch it computes, below ``Layout/data``.
    public var data: Int { rank / layout.tensor }

    /// Its place in its expert group of `degree` ranks: which of the layer's experts it holds.
    public func expert(degree: Int) -> Int {
        switch layout.order {
        case .expertBeforeData: linePlace % degree
        case .dataBeforeExpert: linePlace / (layout.expertLine / degree)
        }
    }

    /// Its place in its expert-data group: which copy of the layer's experts its own belong to.
    public func expertData(degree: Int) -> Int {
        switch layout.order {
        case .expertBeforeData: linePlace / degree
        case .dataBeforeExpert: linePlace % (layout.expertLine / degree)
        }
    }

    /// Its place in the line of ranks that expert groups are cut from.
    private var linePlace: Int { layout.expertTensor ? data : rank }
}
