import ApusCollectives
public import ApusKernels
public import ApusNN
import ApusTensor

/// Adds the gradients of ranks that hold the same parameters, part by part, while backward goes on.
///
/// 1. ``begin()`` before a backward pass after which gradients are to be whole sums.
/// 2. ``complete(from:)`` when backward has gone through the parameters from some place on: the exchange of each part
///    that is complete starts, and runs while backward computes the layers before.
/// 3. ``finish()`` after it: starts the rest, and lets what follows wait.
///
/// A part whose tensor-parallel ranks have partial gradients is summed over these first. Without ZeRO the sum is an
/// all-reduce in place; with it a reduce-scatter of which each rank keeps its share (``GradientPart/keepOwn(_:)``).
/// Every rank starts the same exchanges in the same order, whatever its layers did.
public final class GradientReduction {
    /// What is divided.
    public let stage: ZeROStage
    private let groups: ParallelGroups
    private let store: ParameterStore
    private let backend: any Backend
    private let all: [Bucket]
    private var waiting: ArraySlice<Bucket> = []
    private var underWay: [Exchange] = []

    /// A part of the gradients, and who adds it.
    private struct Bucket {
        let part: GradientPart
        let sharing: Sharing
        let layer: Int?
    }

    /// A sum on its way; `isShare` when it is this rank's share of the part.
    private struct Exchange {
        let part: GradientPart
        let sum: Tensor
        let isShare: Bool
    }

    /// A reduction of the gradients of `store`, whose parts are cut for `groups`.
    public init(_ store: ParameterStore, over groups: ParallelGroups, stage: ZeROStage, backend: any Backend) {
        self.store = store
        self.groups = groups
        self.stage = stage
        self.backend = backend
        let buckets = store.groups.flatMap { group in
            group.gradientParts.map { part in
                Bucket(part: part, sharing: group.sharing, layer: store.parameters[part.firstParameter].layer)
            }
        }
        // The order in which backward completes them; of one layer, that of the groups.
        all = buckets.enumerated().sorted {
            ($1.element.part.firstParameter, $0.offset) < ($0.element.part.firstParameter, $1.offset)
        }.map(\.element)
    }

    /// Begins with the parts of a backward pass.
    public func begin() {
        precondition(underWay.isEmpty, "the reduction before was finished")
        waiting = all[...]
    }

    /// Forgets a pass that came to no end.
    public func abandon() {
        waiting = []
        underWay = []
    }

    /// Starts the exchange of every part none of whose parameters is among the model's first `parameters`.
    ///
    /// - Throws: ``CollectiveError``, ``TensorError``.
    public func complete(from parameters: Int) throws {
        while let bucket = waiting.first, bucket.part.firstParameter >= parameters {
            waiting.removeFirst()
            try start(bucket)
        }
    }

    /// Starts the exchanges that are left; what follows comes after all.
    ///
    /// - Throws: ``CollectiveError``, ``TensorError``.
    public func finish() throws {
        try complete(from: 0)
        for exchange in underWay {
            let sum = try backend.arrived(exchange.sum)
            if exchange.isShare { try exchange.part.keepOwn(sum) }
        }
        underWay = []
    }

    private func start(_ bucket: Bucket) throws {
        let part = bucket.part
        let holders = groups.holders(of: bucket.sharing)
        let isPartial = bucket.sharing.overTensorRanks == .partial && groups.tensor.size > 1
        guard isPartial || holders.size > 1 else { return }
        var sum = try part.gradients()
        if isPartial {
            sum = try groups.tensor.startAllReduce(sum, into: sum, after: backend.stream, layer: bucket.layer)
        }
        guard holders.size > 1 else { return underWay.append(Exchange(part: part, sum: sum, isShare: false)) }
        guard stage > .none else {
            sum = try holders.startAllReduce(sum, into: sum, after: backend.stream, layer: bucket.layer)
            return underWay.append(Exchange(part: part, sum: sum, isShare: false))
        }
        let share = try backend.empty(Shape(part.ownRange.count), part.dtype, .gradients)
        let own = try holders.startReduceScatter(sum, into: share, after: backend.stream, layer: bucket.layer)
        // The exchange keeps the memory as long as it needs it.
        part.releaseWhole()
        underWay.append(Exchange(part: part, sum: own, isShare: true))
    }
}
