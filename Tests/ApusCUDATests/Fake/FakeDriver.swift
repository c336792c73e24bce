import CApusDrivers
import Glibc
import Synchronization
import Testing

@testable import ApusCUDA

/// A driver whose device is host memory: it copies bytes, notes calls, and fails when it is told to.
///
/// C functions have no context, so there is one for all tests, which ``CUDATests`` runs one after another.
enum FakeDriver {
    struct State {
        /// The calls so far, by the field of the table; a launch with the kernel's name and shape.
        var calls: [String] = []
        /// Blocks of the device, and of pinned host memory, and their bytes.
        var live: [UInt: Int] = [:]
        /// Bytes that fit.
        var capacity = 1 << 30
        /// Calls that fail, and with which code.
        var failures: [String: Int32] = [:]
        /// Whether events stay pending until ``FakeDriver/finishEvents()`` or a wait for them.
        var holdsEvents = false
        var pendingEvents: Set<Int> = []
        /// Those whose time may be asked for.
        var timedEvents: Set<Int> = []
        /// Milliseconds from any event to any other.
        var elapsed: Float = 2
        var deviceCount: Int32 = 1
        /// By the driver's number: capability 9.0, multiprocessors, shared memory of a block, cache.
        var attributes: [Int32: Int32] = [75: 9, 76: 0, 16: 132, 97: 232_448, 38: 52_428_800]
        var version: Int32 = 13000
        var nextHandle = 1
        var kernelNames: [Int: String] = [:]
    }

    static let state = Mutex(State())

    /// Forgets everything, and gives the memory back.
    static func reset() {
        state.withLock { state in
            for address in state.live.keys { Glibc.free(UnsafeMutableRawPointer(bitPattern: address)) }
            state = State()
        }
    }

    /// The calls since the last time, of the given kinds or all.
    static func takeCalls(_ kinds: String...) -> [String] {
        state.withLock { state in
            defer { state.calls = [] }
            return kinds.isEmpty
                ? state.calls : state.calls.filter { call in kinds.contains { call.hasPrefix($0) } }
        }
    }

    /// The device comes past all events, or past all but the latest `left`.
    static func finishEvents(besides left: Int = 0) {
        state.withLock { $0.pendingEvents = Set($0.pendingEvents.sorted().suffix(left)) }
    }

    /// Notes a call, and fails it if it is to fail.
    static func note(_ call: String, _ body: (inout State) -> Int32 = { _ in 0 }) -> Int32 {
        state.withLock { state in
            state.calls.append(call)
            if let code = state.failures[call] { return code }
            return body(&state)
        }
    }

    static func handle() -> OpaquePointer? {
        state.withLock { state in
            state.nextHandle += 1
            return OpaquePointer(bitPattern: state.nextHandle)
        }
    }

    static func allocate(_ call: String, _ bytes: Int) -> (code: Int32, address: UInt) {
        var address: UInt = 0
        let code = note(call) { state in
            guard state.live.values.reduce(0, +) + bytes <= state.capacity else { return APUS_CU_OUT_OF_MEMORY }
            guard let block = aligned_alloc(256, (bytes + 255) / 256 * 256) else { return APUS_CU_OUT_OF_MEMORY }
            // Kernels write nothing: what is read is 0, not what happened to lie there.
            memset(block, 0, bytes)
            address = UInt(bitPattern: block)
            state.live[address] = bytes
            return 0
        }
        return (code, address)
    }

    static func free(_ call: String, _ address: UInt) -> Int32 {
        note(call) { state in
            guard state.live.removeValue(forKey: address) != nil else { return 1 }
            Glibc.free(UnsafeMutableRawPointer(bitPattern: address))
            return 0
        }
    }

    /// A context on the fake device.
    static func context() throws -> CUDAContext {
        let driver = try CUDADriver(functions: table)
        return try CUDAContext(CUDADevice(0, driver: driver), driver: driver)
    }

    /// A backend on the fake device, with kernels that do nothing.
    static func backend(limits: KernelLimits? = nil) throws -> CUDABackend {
        let context = try context()
        return try CUDABackend(
            context, products: ProductLibrary(context, functions: FakeProducts.table),
            kernels: KernelLibrary(
                context, compiler: KernelCompiler(functions: FakeCompiler.table), cache: KernelCache(folder: nil),
                files: [FakeCompiler.source], names: { _ in .any }), limits: limits)
    }
}

/// Tests that share the fake driver.
@Suite(.serialized) enum CUDATests {}
