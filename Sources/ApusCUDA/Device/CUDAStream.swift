import ApusTensor
import CApusDrivers

/// A queue of a device's work, done in the order in which it was given.
// Sendable: the handle never changes, and the driver's functions may be called from any thread.
final class CUDAStream: @unchecked Sendable {
    let context: CUDAContext
    let handle: apus_cu_stream

    /// A stream; where the device has not room for everybody at once, one that `isUrgent` comes first.
    init(_ context: CUDAContext, isUrgent: Bool = false) throws(CUDAError) {
        self.context = context
        try context.makeCurrent()
        var stream: apus_cu_stream?
        let functions = context.driver.functions
        try context.driver.check(
            isUrgent
                ? functions.stream_create_urgent(&stream, APUS_CU_STREAM_NON_BLOCKING, APUS_CU_PRIORITY_HIGHEST)
                : functions.stream_create(&stream, APUS_CU_STREAM_NON_BLOCKING), "cuStreamCreate")
        guard let stream else { preconditionFailure("cuStreamCreate made no stream") }
        handle = stream
    }

    deinit { _ = context.driver.functions.stream_destroy(handle) }

    /// The end of all work given so far.
    func record() throws(CUDAError) -> Event { Event(of: try CUDAEvent(on: self)) }

    /// Work given from now on waits for `event`: on the device where the event is the device's, else on the host.
    func wait(for event: Event) throws {
        if let mark = event.work as? CUDAEvent { return try wait(for: mark) }
        guard let work = event.work as? NCCLWork else { return try event.wait() }
        try wait(for: work.mark())
        work.noteWait(of: self)
    }

    /// Work given from now on waits, on the device, for another stream to come past `mark`.
    func wait(for mark: CUDAEvent) throws(CUDAError) {
        try context.driver.check(
            context.driver.functions.stream_wait_event(handle, mark.handle, 0), "cuStreamWaitEvent")
    }

    /// Copies bytes within the device.
    func copy(from source: UInt64, to target: UInt64, byteCount: Int) throws(CUDAError) {
        try context.makeCurrent()
        try context.driver.check(
            context.driver.functions.copy(target, source, byteCount, handle), "cuMemcpyDtoDAsync of \(byteCount) bytes")
    }

    /// Blocks the host until all work given so far is done.
    func synchronize() throws(CUDAError) {
        context.countSynchronization()
        try context.makeCurrent()
        try context.driver.check(context.driver.functions.stream_synchronize(handle), "cuStreamSynchronize")
    }
}
