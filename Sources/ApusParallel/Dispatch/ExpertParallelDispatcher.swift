public import ApusCollectives
public import ApusExperts
import ApusKernels
public import ApusNN
public import ApusTensor

// Shape letters: T tokens, D model width, F expert width, E experts, K choices per token, R routed rows, L local experts
// of each of an expert group's N ranks, S slices of F, P ranks of a tensor group.

/// Carries tokens to experts on other ranks. Each of a group of N ranks holds an ``ExpertShare``: L = E / N experts, or
/// with more ranks than experts one of S = N / E slices of an expert's F (MegaBlocks' hidden sharding).
///
/// 1. Announce: how many rows each rank gets, for each of its experts, is on its way while rows are gathered.
/// 2. Send: an all-to-all of rows, uneven for dropless layers, even for padded ones of equal capacities. Rows go to all
///    slices of their expert.
/// 3. Arrange: rows arrive by source and are read by expert, in the order of the global batch.
/// 4. Return: the same backwards; a row's results are added by slice, then every token sums its own.
///
/// The all-to-all is flat or, given a ``HierarchicalAllToAll``, one within nodes and one across them. With a tensor group
/// whose ranks hold the same tokens, a ``TensorBridge`` stands around the experts, and
/// ``ExpertParallelOptions/dropsDuplicates`` coordinates the two kinds of parallelism. Every rank starts every
/// collective, also with no rows at all. Backward mirrors all of it through the tape's exchanges.
public final class ExpertParallelDispatcher: Dispatcher {
    /// E, over all ranks.
    public let experts: Int
    /// What this rank holds of them.
    public let share: ExpertShare
    /// The experts that each rank of the group has rows sent for: in the order of ranks all experts, once for each slice.
    private let destinations: [Range<Int>]
    private let group: any Collective
    private let nodes: HierarchicalAllToAll?
    private let part: PartOfGroup?
    private let bridge: TensorBridge?
    private let hasSameCapacities: Bool
    private let layer: Int?
    /// What was dispatched and not combined.
    private(set) var journeys = OpenJourneys()

    /// A dispatcher of one layer.
    ///
    /// - Parameters:
    ///   - experts: E, a multiple of the group's size, or a divisor of it.
    ///   - group: The ranks among which the experts are divided.
    ///   - nodes: How `group` lies on nodes, for a hierarchical all-to-all; `nil` for a flat one.
    ///   - tensor: The ranks that hold the same tokens as this one; `nil` for none.
    ///   - options: What to do about the latter.
    ///   - layer: Global layer index, for messages.
    public init(
        experts: Int, group: any Collective, nodes: HierarchicalAllToAll? = nil, tensor: (any Collective)? = nil,
        options: ExpertParallelOptions = ExpertParallelOptions(), layer: Int? = nil
    ) {
        if let nodes { precondition(nodes.node.size * nodes.across.size == group.size, "nodes of another group") }
        self.experts = experts
        self.group = group
        self.nodes = nodes
        self.layer = layer
        let shares = (0..<group.size).map { ExpertShare(place: $0, degree: group.size, experts: experts) }
        share = shares[group.rank]
        destinations = shares.map(\.experts)
        hasSameCapacities = options.hasSameCapacities
        guard let tensor, tensor.size > 1 else {
            (part, bridge) = (nil, nil)
            return
        }
        let isDivided = options.dropsDuplicates || !options.dividesExperts
        part = isDivided ? PartOfGroup(collective: tensor, layer: layer) : nil
        bridge =
            options.dividesExperts
            ? TensorBridge(
                collective: tensor, isDivided: isDivided, fusesReduceScatter: options.fusesReduceScatter, layer: layer)
            : nil
    }

    /// The experts of which this rank has all, or its slice.
    public var localExperts: Range<Int> { share.experts }

    public var exchangesRows: Bool { true }

    public func dispatch(
        _ x: Variable, _ decision: RoutingDecision, numbers: Tensor?, on tape: Tape
    ) throws -> InFlight {
        precondition(decision.experts == experts, "a decision over \(decision.experts) of \(experts) experts")
        let shipment = try shipment(of: decision, tape.backend)
        let announcement = RowAnnouncement(shipment, to: destinations)
        let pending = try announce(
            announcement, isKnown: shipment.announcedRows != nil && !decision.capacitiesVary, on: tape)
        let rows = try tape.repeated(shipment.rows(of: x, on: tape), slices: share.slices)
        // Without parts of others to gather, this rank's part is the only one.
        let own = shipment.counts.count == 1 ? 0 : part?.collective.rank ?? 0
        let plan = ExchangePlan(
            sent: destinations.map { shipment.counts[own][$0].reduce(0, +) },
            received: announcement.rows(try pending.wait()), part: own)
        let isEven = decision.isPadded && plan.isEven
        let path = try path(plan.splits, isEven: isEven, tape.backend) {
            announcement.rows(pending.relayed).map { $0[own].reduce(0, +) }
        }
        let way = try path.start(rows, rowBound: isEven ? nil : plan.bound, layer: layer, on: tape)
        // Numbers go the same way, but need no way back.
        let idle = Tape(backend: tape.backend, isRecording: false)
        let numbersWay = try numbers.map {
            try path.start(
                idle.repeated(shipment.numbers($0, on: idle), slices: share.slices),
                rowBound: isEven ? nil : plan.bound,
                layer: layer, on: idle)
        }
        let order = try plan.order(tape.backend)
        let offsets = try tape.backend.tensor(plan.offsets, Shape(plan.offsets.count))
        journeys.begin(
            Journey(decision: decision, shipment: shipment, path: path.reversed, order: order?.reversed), on: tape)
        return InFlight { [bridge] in
            let arrived = try way.finish()
            let gathered = try bridge?.enter(arrived, on: tape) ?? arrived
            let rows = try order.map { try tape.arranged(gathered, $0) } ?? gathered
            let numbers = try numbersWay.map { way in
                let arrived = try way.finish()
                let gathered = try bridge?.gather(arrived, on: idle) ?? arrived
                return try order.map { try idle.arranged(gathered, $0) } ?? gathered
            }
            return RoutedRows(rows: rows, offsets: offsets, numbers: numbers?.tensor)
        }
    }

    public func combine(
        _ results: Variable, weights: Variable, _ decision: RoutingDecision, base: Variable?, on tape: Tape
    ) throws -> InFlightCombination {
        let journey = journeys.end(of: decision, on: tape)
        let arranged = try journey.order.map { try tape.arranged(results, $0) } ?? results
        let own = try bridge?.leave(arranged, on: tape) ?? arranged
        let way = try journey.path.start(own, layer: layer, on: tape)
        return InFlightCombination { [slices = share.slices] in
            try journey.shipment.combine(
                tape.sumOfSlices(way.finish(), slices: slices), weights: weights, base: base, on: tape)
        }
    }

    private func shipment(of decision: RoutingDecision, _ backend: any Backend) throws -> any RowShipment {
        let announcesAll = bridge != nil
        if decision.isPadded {
            return try PaddedShipment(decision, part: part, announcesAllParts: announcesAll, backend: backend)
        }
        return try DroplessShipment(decision, part: part, announcesAllParts: announcesAll, backend: backend)
    }

    /// Starts to tell every rank what it will get, unless it knows already: all ranks say the same then.
    private func announce(
        _ announcement: RowAnnouncement, isKnown: Bool, on tape: Tape
    ) throws -> PendingNumbers {
        let numbers = announcement.numbers
        if isKnown && hasSameCapacities {
            var pending = PendingNumbers { numbers }
            pending.relayed = numbers
            return pending
        }
        return try nodes?.startToTell(numbers, layer: layer, on: tape)
            ?? tape.startToTell(numbers, over: group, layer: layer)
    }

    /// - Parameter relayed: Rows that pass through this rank, [sender's place in this node and receiver's node].
    private func path(
        _ splits: RowSplits, isEven: Bool, _ backend: any Backend, relayed: () -> [Int]
    ) throws -> RowPath {
        if let nodes { return try nodes.path(splits, relayed: relayed(), isEven: isEven, backend) }
        return RowPath(
            hops: [RowPath.Hop(group: group, splits: isEven ? nil : splits)], orders: [nil, nil], slowest: 0)
    }
}
