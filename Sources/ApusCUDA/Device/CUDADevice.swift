import CApusDrivers

/// What a CUDA device is.
public struct CUDADevice: Sendable {
    /// Its place among the devices that the driver shows.
    public let ordinal: Int
    /// Its maker's name for it.
    public let name: String
    /// Compute capability, which names the instructions that it has: 9.0 for Hopper.
    public let capability: LibraryVersion
    /// Multiprocessors.
    public let multiprocessors: Int
    /// Bytes of memory.
    public let memory: Int
    /// Bytes of the second-level cache.
    public let cache: Int
    /// Bytes of shared memory that one block may ask for.
    public let sharedMemory: Int
    /// Where it is on the machine's bus, the same number for every process that sees it.
    let place: Int
    let handle: apus_cu_device

    /// The oldest compute capability that the kernels are written for.
    public static let oldestCapability = LibraryVersion(8, 0)

    /// The number of devices.
    public static func count(_ driver: CUDADriver) throws -> Int {
        var count: Int32 = 0
        try driver.check(driver.functions.device_count(&count), "cuDeviceGetCount")
        return Int(count)
    }

    /// The ordinal of the device that the process at `place` among those on this machine is to use: its own of those that
    /// the driver shows, or the only one where each process is shown another.
    ///
    /// - Throws: ``LibraryProblem`` where there are fewer devices than processes; ``CUDAError``.
    public static func ordinal(forProcess place: Int) throws -> Int {
        try ordinal(forProcess: place, of: CUDADevice.count(CUDADriver.shared.get()))
    }

    static func ordinal(forProcess place: Int, of count: Int) throws(LibraryProblem) -> Int {
        if count == 1 { return 0 }
        guard count > 0 else { throw LibraryProblem.noDevice }
        guard place < count else { throw LibraryProblem.noSuchDevice(ordinal: place, count: count) }
        return place
    }

    /// Looks at the device of an ordinal.
    ///
    /// - Throws: ``LibraryProblem`` where there is none, or none recent enough; ``CUDAError``.
    public init(_ ordinal: Int, driver: CUDADriver) throws {
        let count = try CUDADevice.count(driver)
        guard count > 0 else { throw LibraryProblem.noDevice }
        guard (0..<count).contains(ordinal) else { throw LibraryProblem.noSuchDevice(ordinal: ordinal, count: count) }
        var device = apus_cu_device()
        try driver.check(driver.functions.device(&device, Int32(ordinal)), "cuDeviceGet")
        func attribute(_ key: Int32) throws -> Int {
            var value: Int32 = 0
            try driver.check(driver.functions.device_attribute(&value, key, device), "cuDeviceGetAttribute")
            return Int(value)
        }
        var text = [CChar](repeating: 0, count: 256)
        try driver.check(driver.functions.device_name(&text, Int32(text.count), device), "cuDeviceGetName")
        var bytes = 0
        try driver.check(driver.functions.device_memory(&bytes, device), "cuDeviceTotalMem")
        self.ordinal = ordinal
        name = String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        capability = LibraryVersion(try attribute(APUS_CU_CAPABILITY_MAJOR), try attribute(APUS_CU_CAPABILITY_MINOR))
        multiprocessors = try attribute(APUS_CU_MULTIPROCESSORS)
        cache = try attribute(APUS_CU_L2_BYTES)
        sharedMemory = try attribute(APUS_CU_SHARED_MEMORY_PER_BLOCK_OPTIN)
        memory = bytes
        let bus = [APUS_CU_PCI_DOMAIN, APUS_CU_PCI_BUS, APUS_CU_PCI_DEVICE]
        place = try bus.reduce(0) { try $0 << 16 | attribute($1) }
        handle = device
        guard capability >= CUDADevice.oldestCapability else {
            throw LibraryProblem.tooOld(
                library: "compute capability of \(name)", needed: "\(CUDADevice.oldestCapability)",
                found: "\(capability)")
        }
    }
}
