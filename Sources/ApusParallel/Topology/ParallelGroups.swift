public import ApusCollectives
public import ApusNN

/// The communicators of a layout, seen from one rank: one for each group that the rank belongs to.
///
/// Making them is an operation of the whole world: every rank makes the same splits in the same order, first tensor and
/// data groups, then for each expert degree that occurs, ascending, expert and expert-data groups. Layers with the same
/// degree share their communicators.
public final class ParallelGroups: Sendable {
    /// The layout.
    public let layout: Layout
    /// Where this rank stands.
    public let place: RankPlace
    /// The communicator of all ranks, of which the others are parts.
    public let world: any Collective
    private let parts: [GroupKind: any Collective]
    private let nodes: [Int: HierarchicalAllToAll]

    /// Makes the communicators. Blocks; every rank of `world` takes part, with the same layout.
    ///
    /// - Parameter ranksPerNode: Ranks of the world on each node, for all-to-alls that go within nodes first; `nil` for
    ///   flat ones.
    /// - Throws: ``LayoutError`` when `world` has not the layout's number of ranks;
    ///   ``CollectiveError/mismatch(_:_:detail:)``, which quotes the layouts, when ranks have different ones.
    public init(_ layout: Layout, world: any Collective, ranksPerNode: Int? = nil) throws {
        guard layout.ranks == world.size else {
            var wanted = layout.configuration
            wanted.data = nil
            throw LayoutError(
                key: "ranks", reason: "is \(world.size), and the layout was made for \(layout.ranks)",
                alternative: "start \(layout.ranks) ranks", nearest: wanted.nearestLayout(ranks: world.size, for: nil))
        }
        // Nobody joins this part: the ranks compare its name, and so their layouts, before any group is made of them.
        _ = try world.split(name: "layout of \(layout)", color: nil)
        var parts: [GroupKind: any Collective] = [.world: world]
        for kind in layout.groupKinds {
            parts[kind] = try world.split(name: kind.name, color: layout.groupIndex(kind, of: world.rank))
        }
        var nodes: [Int: HierarchicalAllToAll] = [:]
        if let ranksPerNode {
            for degree in layout.expertDegrees {
                guard let group = parts[.expert(degree: degree)] else { continue }
                nodes[degree] = try HierarchicalAllToAll(over: group, ranksPerNode: ranksPerNode)
            }
        }
        self.layout = layout
        self.world = world
        self.parts = parts
        self.nodes = nodes
        place = layout.place(of: world.rank)
    }

    /// The communicator of this rank's group of `kind`, which the layout must have.
    public subscript(kind: GroupKind) -> any Collective {
        guard let part = parts[kind] else { preconditionFailure("\(layout) has no group \(kind.name)") }
        return part
    }

    /// Ranks that share each matrix with this one.
    public var tensor: any Collective { self[.tensor] }

    /// Ranks that hold the same part of what is no expert.
    public var data: any Collective { self[.data] }

    /// Ranks that divide one copy of the experts of `layer` among them.
    public func expert(layer: Int) -> any Collective { self[.expert(degree: layout.expertDegree(layer: layer))] }

    /// How the expert group of `layer` lies on nodes; `nil` where one flat all-to-all must do.
    public func expertNodes(layer: Int) -> HierarchicalAllToAll? { nodes[layout.expertDegree(layer: layer)] }

    /// Ranks that hold the same experts of `layer`.
    public func expertData(layer: Int) -> any Collective {
        self[.expertData(degree: layout.expertDegree(layer: layer))]
    }

    /// The ranks that hold the same parameters of `sharing` as this one, over which their gradients are added and their
    /// state is divided.
    ///
    /// Gradients are added, not averaged: the loss is a mean over the tokens of the whole batch, whose number is known
    /// before backward, so that each rank's gradient is its part of the whole. The sum is the same for any expert
    /// degree; DeepSpeed's averages reach that by dividing by the full data degree.
    public func holders(of sharing: Sharing) -> any Collective {
        sharing.expertDegree.map { self[.expertData(degree: $0)] } ?? data
    }

    /// This rank's part in what ``holders(of:)`` divide among them.
    public func share(of sharing: Sharing) -> StateShare {
        let holders = holders(of: sharing)
        return StateShare(index: holders.rank, count: holders.size)
    }
}
