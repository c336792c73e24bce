public import ApusKernels
import ApusTensor
import CApusDrivers
import Synchronization

/// Ops that are given to the stream while it records.
struct Recording {
    /// Tables of indices that the ops read.
    var constants: [Tensor] = []
}

extension CUDABackend: RecordingOp {
    public var isRecordingCheaper: Bool { true }

    public func record(_ body: @escaping () throws -> Void) throws -> any RecordedWork { try capture(body) }

    /// See ``RecordingOp/record(_:)``.
    func capture(_ body: () throws -> Void) throws -> CUDAGraph {
        let reserve = MemoryReserve(allocator)
        let (context, functions) = (queue.context, queue.context.driver.functions)
        try context.makeCurrent()
        try context.driver.check(
            // Memory may be asked of the driver meanwhile; nothing else is done that it could not record.
            functions.stream_begin_capture(queue.handle, APUS_CU_CAPTURE_RELAXED), "cuStreamBeginCapture")
        recording.withLock { $0 = Recording() }
        let result = Result { try allocator.reserving(reserve, body) }
        let kept = recording.withLock { $0.take() }?.constants ?? []
        var graph: apus_cu_graph?
        let code = functions.stream_end_capture(queue.handle, &graph)
        defer { if let graph { _ = functions.graph_destroy(graph) } }
        try result.get()
        try context.driver.check(code, "cuStreamEndCapture")
        guard let graph else { preconditionFailure("cuStreamEndCapture made no graph") }
        return try CUDAGraph(graph, queue, reserve: reserve, keeping: kept)
    }

    /// Refuses what recorded work cannot contain.
    func refuseWhileRecording(_ request: @autoclosure () -> String) throws(RecordingError) {
        if recording.withLock({ $0 != nil }) { throw RecordingError(request: request()) }
    }
}
