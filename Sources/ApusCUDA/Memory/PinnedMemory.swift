import ApusTensor
import CApusDrivers

/// Host memory that stays where it is, so that a device copies from it and to it while the host goes on.
struct PinnedMemory: MemorySource {
    let context: CUDAContext
    let device = Device.cpu

    func allocate(_ size: Int) throws(TensorError) -> UInt? {
        var address: UnsafeMutableRawPointer?
        do throws(CUDAError) {
            try context.makeCurrent()
            let code = context.driver.functions.allocate_host(&address, size, 0)
            if code == APUS_CU_OUT_OF_MEMORY { return nil }
            try context.driver.check(code, "cuMemHostAlloc")
        } catch {
            throw .deviceFailed(error)
        }
        return address.map { UInt(bitPattern: $0) }
    }

    func free(_ address: UInt, size: Int) {
        _ = try? context.makeCurrent()
        _ = context.driver.functions.free_host(UnsafeMutableRawPointer(bitPattern: address))
    }
}
