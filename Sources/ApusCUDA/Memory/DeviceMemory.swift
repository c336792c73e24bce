import ApusTensor
import CApusDrivers

/// The memory of a device.
struct DeviceMemory: MemorySource {
    let context: CUDAContext
    var device: Device { .cuda(context.device.ordinal) }

    func allocate(_ size: Int) throws(TensorError) -> UInt? {
        var address: apus_cu_address = 0
        do throws(CUDAError) {
            try context.makeCurrent()
            let code = context.driver.functions.allocate(&address, size)
            if code == APUS_CU_OUT_OF_MEMORY { return nil }
            try context.driver.check(code, "cuMemAlloc")
        } catch {
            throw .deviceFailed(error)
        }
        return UInt(address)
    }

    func free(_ address: UInt, size: Int) {
        // The driver waits until the device is done with the block. What fails here failed before, and was reported then.
        context.countSynchronization()
        _ = try? context.makeCurrent()
        _ = context.driver.functions.free(apus_cu_address(address))
    }
}
