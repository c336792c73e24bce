import CApusDrivers
import Synchronization

/// One kernel on a device.
// Sendable: the handle never changes.
final class Kernel: @unchecked Sendable {
    let name: String
    private let handle: apus_cu_function
    private let context: CUDAContext
    private let allowedShared = Atomic<Int>(Kernel.usualShared)

    /// Bytes of shared memory that a block gets without asking.
    static let usualShared = 48 << 10

    init(name: String, handle: apus_cu_function, context: CUDAContext) {
        self.name = name
        self.handle = handle
        self.context = context
    }

    /// Puts one launch into the stream.
    func launch(_ shape: LaunchShape, _ arguments: inout ArgumentList, on stream: CUDAStream) throws(CUDAError) {
        let driver = context.driver
        try context.makeCurrent()
        if shape.sharedBytes > allowedShared.load(ordering: .relaxed) {
            try driver.check(
                driver.functions.function_set_attribute(
                    handle, APUS_CU_FUNCTION_MAX_DYNAMIC_SHARED_BYTES, Int32(shape.sharedBytes)),
                "cuFuncSetAttribute of \(name), \(shape.sharedBytes) bytes of shared memory")
            allowedShared.store(shape.sharedBytes, ordering: .relaxed)
        }
        let code = arguments.withPointers { pointers in
            driver.functions.launch(
                handle, UInt32(shape.grid.x), UInt32(shape.grid.y), UInt32(shape.grid.z), UInt32(shape.block.x),
                UInt32(shape.block.y), UInt32(shape.block.z), UInt32(shape.sharedBytes), stream.handle, pointers, nil)
        }
        try driver.check(code, "cuLaunchKernel of \(name), grid \(shape.grid), block \(shape.block)")
    }
}
