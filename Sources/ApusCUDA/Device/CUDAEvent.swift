import ApusTensor
import CApusDrivers

/// A place in a stream's order: over when the stream has come past it.
// Sendable: the handle never changes, and the driver's functions may be called from any thread.
final class CUDAEvent: DeviceWork, @unchecked Sendable {
    let context: CUDAContext
    let handle: apus_cu_event

    /// The end of all that `stream` was given so far; `isTimed` for one whose time is asked for.
    init(on stream: CUDAStream, isTimed: Bool = false) throws(CUDAError) {
        context = stream.context
        let driver = context.driver
        try context.makeCurrent()
        var event: apus_cu_event?
        try driver.check(
            driver.functions.event_create(&event, isTimed ? APUS_CU_EVENT_DEFAULT : APUS_CU_EVENT_DISABLE_TIMING),
            "cuEventCreate")
        guard let event else { preconditionFailure("cuEventCreate made no event") }
        handle = event
        try driver.check(driver.functions.event_record(event, stream.handle), "cuEventRecord")
    }

    deinit { _ = context.driver.functions.event_destroy(handle) }

    // An error also ends the work; whoever waits for it is told.
    var isComplete: Bool { context.driver.functions.event_query(handle) != APUS_CU_NOT_READY }

    func wait() throws {
        let code = context.driver.functions.event_query(handle)
        guard code == APUS_CU_NOT_READY else { return try context.driver.check(code, "cuEventQuery") }
        context.countSynchronization()
        try context.driver.check(context.driver.functions.event_synchronize(handle), "cuEventSynchronize")
    }

    /// Seconds of the device from an earlier event to this one; both timed, and over.
    func seconds(since begin: CUDAEvent) throws(CUDAError) -> Double {
        var milliseconds: Float = 0
        try context.driver.check(
            context.driver.functions.event_elapsed(&milliseconds, begin.handle, handle), "cuEventElapsedTime")
        return Double(milliseconds) / 1000
    }
}
