import ApusCollectives
import ApusKernels
import ApusModels
import ApusNN
import ApusTensor

/// Brings the parts of divided parameters together, each on the rank that writes it, in the order of the plan.
///
/// Ranks that have no part in a parameter take no part in its exchange, which is one of host memory whatever the device.
/// All memory is there before the first exchange: a rank that ran out of it in the middle would leave others waiting.
struct WeightGathering {
    private let plan: CheckpointPlan
    private let store: ParameterStore
    private let world: any Collective
    private let backend: any Backend
    /// Holds the largest part that this rank receives, on the host.
    private let received: Tensor?

    /// - Parameters:
    ///   - world: All ranks; its operations are those of host memory.
    ///   - memory: Of the host.
    /// - Throws: ``TensorError/outOfMemory(requested:purpose:statistics:limit:)``
    init(
        _ plan: CheckpointPlan, _ store: ParameterStore, over world: any Collective, _ memory: CachingAllocator,
        backend: any Backend
    ) throws(TensorError) {
        self.plan = plan
        self.store = store
        self.world = world
        self.backend = backend
        let bytes = plan.weights.filter { weights in
            weights.writer == world.rank && weights.parts.contains { $0.rank != world.rank }
        }.map { $0.type.byteCount(elements: $0.largestPart) }.max()
        received = if let bytes { try memory.empty(Shape(bytes), .u8, .checkpoint) } else { nil }
    }

    /// Takes this rank's part in bringing `weights` together.
    ///
    /// - Parameter whole: Host memory for all of it, on the rank that writes it.
    /// - Returns: Why it could not be put together on this rank, though the others have done their part.
    /// - Throws: ``CollectiveError``; what reading this rank's own weights throws.
    func callAsFunction(_ weights: CheckpointPlan.Weights, into whole: Tensor?) throws -> (any Error)? {
        guard weights.writer == world.rank else {
            guard weights.parts.contains(where: { $0.rank == world.rank }) else { return nil }
            try withOwn(weights) { held in
                let host = try backend.download(held)
                try host.ready?.wait()
                try perform(.send(host, to: weights.writer))
            }
            return nil
        }
        var failure: (any Error)?
        for part in weights.parts {
            do {
                if part.rank == world.rank {
                    try withOwn(weights) { held in
                        var first = 0
                        try backend.forEachPiece(of: held) { bytes in
                            first = place(bytes, at: first, part.shard, of: weights, in: whole)
                        }
                    }
                } else {
                    let source = target(weights, part.shard)
                    try perform(.receive(source, from: part.rank))
                    let bytes = UnsafeRawBufferPointer(
                        start: source.rawPointer, count: source.dtype.byteCount(elements: source.count))
                    _ = place(bytes, at: 0, part.shard, of: weights, in: whole)
                }
            } catch let error as CollectiveError {
                throw error
            } catch {
                failure = failure ?? error
            }
        }
        return failure
    }

    /// Lends what this rank holds, dense, flat and in the type of files.
    func withOwn(_ weights: CheckpointPlan.Weights, _ body: (Tensor) throws -> Void) throws {
        guard let parameter = store[weights.name] else { preconditionFailure("the plan knows what is held") }
        try parameter.withWeights(on: backend.stream) { held in
            var source = held
            if held.dtype != weights.type {
                source = try backend.empty(held.shape, weights.type, .workspace)
                try backend.convert(held, into: source)
            }
            try body(source.reshaped(source.count))
        }
    }

    private func perform(_ operation: CollectiveOperation) throws {
        try world.start(operation, after: .cpu, layer: nil).wait()
    }

    private func target(_ weights: CheckpointPlan.Weights, _ shard: Shard?) -> Tensor {
        guard let received else { preconditionFailure("memory was taken for what is received") }
        let elements = shard.map { weights.shape.reduce(1, *) / weights.shape[$0.dimension] * $0.range.count }
        return Tensor(
            storage: received.storage, shape: Shape(elements ?? weights.shape.reduce(1, *)), dtype: weights.type)
    }

    /// Copies elements of a part, from its element `first` on, to their place in the whole.
    ///
    /// - Returns: the element of the part that comes next.
    private func place(
        _ bytes: UnsafeRawBufferPointer, at first: Int, _ shard: Shard?, of weights: CheckpointPlan.Weights,
        in whole: Tensor?
    ) -> Int {
        let size = weights.type.byteCount(elements: 1)
        let elements = first..<first + bytes.count / size
        guard let whole, !elements.isEmpty else { return elements.upperBound }
        let piece = StatePieceIndex.Piece(shape: weights.shape, shard: shard, elements: elements)
        for run in piece.runs {
            let target = UnsafeMutableRawBufferPointer(
                start: whole.rawPointer + run.whole.lowerBound * size, count: run.whole.count * size)
            let source = run.stored * size
            target.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[source..<source + target.count]))
        }
        return elements.upperBound
    }
}
