import ApusModels
import ApusTensor

/// Host memory for all that one rank writes of a checkpoint, by its place in the plan.
struct CheckpointCopy: Sendable {
    /// The parameters that the rank writes, whole.
    let weights: [Int: Tensor]
    /// The pieces of state that it writes.
    let states: [Int: Tensor]

    /// - Throws: ``TensorError/outOfMemory(requested:purpose:statistics:limit:)``
    init(_ plan: CheckpointPlan, rank: Int, _ memory: CachingAllocator) throws(TensorError) {
        var weights: [Int: Tensor] = [:]
        for (place, entry) in plan.weights.enumerated() where entry.writer == rank {
            weights[place] = try memory.empty(Shape(entry.shape.reduce(1, *)), entry.type, .checkpoint)
        }
        var states: [Int: Tensor] = [:]
        for (place, entry) in plan.states.enumerated() where entry.writer == rank {
            states[place] = try memory.empty(Shape(entry.piece.elements.count), entry.type, .checkpoint)
        }
        (self.weights, self.states) = (weights, states)
    }

    /// Writes the rank's files.
    ///
    /// - Throws: ``FileError``.
    func write(_ plan: CheckpointPlan, rank: Int, toFolder folder: String) throws -> [String: FileDigest] {
        let sink = ShardSink(plan.weightFiles, writer: rank, folder: folder)
        for (place, tensor) in weights.sorted(by: { $0.key < $1.key }) {
            sink.append(tensor.hostBytes, to: plan.weights[place].name)
        }
        var digests = try sink.finish()
        let states = ShardSink(plan.stateFiles, writer: rank, folder: folder)
        for (place, tensor) in self.states.sorted(by: { $0.key < $1.key }) {
            states.append(tensor.hostBytes, to: plan.states[place].name)
        }
        digests.merge(try states.finish()) { first, _ in first }
        return digests
    }
}

extension Tensor {
    /// The bytes of a dense tensor of the host; valid while the tensor is.
    fileprivate var hostBytes: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: rawPointer, count: dtype.byteCount(elements: count))
    }
}
