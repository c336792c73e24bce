import ApusTensor
import CApusDrivers
import Synchronization

/// One device in use by this process: its primary context, which every library on the device shares.
// Sendable: the handle never changes, and the driver's functions may be called from any thread.
final class CUDAContext: @unchecked Sendable {
    let driver: CUDADriver
    let device: CUDADevice
    private let handle: apus_cu_context
    private let waits = Atomic<Int>(0)

    init(_ device: CUDADevice, driver: CUDADriver) throws {
        self.driver = driver
        self.device = device
        var context: apus_cu_context?
        try driver.check(
            driver.functions.primary_context_retain(&context, device.handle), "cuDevicePrimaryCtxRetain")
        guard let context else { throw LibraryProblem.noDevice }
        handle = context
        try makeCurrent()
    }

    deinit { _ = driver.functions.primary_context_release(device.handle) }

    /// Makes this thread's calls go to the device. Cheap where they do already.
    @inline(__always)
    func makeCurrent() throws(CUDAError) {
        try driver.check(driver.functions.set_current(handle), "cuCtxSetCurrent")
    }

    /// How often the host waited for the device since the start.
    var synchronizations: Int { waits.load(ordering: .relaxed) }

    /// Counts one wait of the host for the device.
    func countSynchronization() { waits.wrappingAdd(1, ordering: .relaxed) }
}
