import CApusDrivers
import Synchronization
import Testing

@testable import ApusCUDA

extension CUDATests {
    @Suite struct `Libraries found at run time` {
        init() { FakeDriver.reset() }

        private func message(_ names: String) -> String {
            let loader = LibraryLoader(library: "the NVIDIA driver", names: names, needed: LibraryVersion(12, 0))
            do {
                _ = try loader.table(apus_cuda_load)
                return "loaded"
            } catch {
                return "\(error)"
            }
        }

        @Test func `one that is missing is named, with the reason and what is needed`() {
            let text = message("libapus-none.so.1 libapus-none.so.2")
            #expect(text.hasPrefix("the NVIDIA driver was not found (libapus-none.so.2: cannot open"))
            #expect(text.hasSuffix("needed is 12.0 or later"))
            #expect(!text.contains("\n"))
        }

        @Test func `one without a function is named, with the function`() {
            #expect(
                message("libapus-none.so.1 libm.so.6")
                    == "the NVIDIA driver in libapus-none.so.1 libm.so.6 has no cuInit; needed is 12.0 or later")
        }

        @Test func `a library newer than the driver is not looked for`() {
            let loader = LibraryLoader(library: "x", names: "a.so.13 b.so.12 c.so.9", needed: LibraryVersion(12, 0))
            #expect(loader.upTo(major: 12).names == "b.so.12 c.so.9")
        }

        @Test func `a driver that is too old is refused`() {
            FakeDriver.state.withLock { $0.version = 11040 }
            #expect(
                throws: LibraryProblem.tooOld(library: "the NVIDIA driver", needed: "12.0", found: "11.4")
            ) { try CUDADriver(functions: FakeDriver.table) }
        }

        @Test func `a compiler and a product library that are too old are refused`() throws {
            FakeCompiler.state.withLock { $0.version = (11, 8) }
            FakeProducts.state.withLock { $0.version = 110_800 }
            defer {
                FakeCompiler.reset()
                FakeProducts.reset()
            }
            #expect(throws: LibraryProblem.tooOld(library: "NVRTC", needed: "12.0", found: "11.8")) {
                try KernelCompiler(functions: FakeCompiler.table)
            }
            let context = try FakeDriver.context()
            #expect(throws: LibraryProblem.tooOld(library: "cuBLASLt", needed: "12.0", found: "11.8")) {
                try ProductLibrary(context, functions: FakeProducts.table)
            }
        }

        @Test func `no device, and no such device, are different answers`() throws {
            let driver = try CUDADriver(functions: FakeDriver.table)
            #expect(throws: LibraryProblem.noSuchDevice(ordinal: 3, count: 1)) { try CUDADevice(3, driver: driver) }
            FakeDriver.state.withLock { $0.deviceCount = 0 }
            #expect(throws: LibraryProblem.noDevice) { try CUDADevice(0, driver: driver) }
        }

        @Test func `a device says what it is`() throws {
            let device = try FakeDriver.context().device
            #expect(device.name == "Fake H100" && device.capability == LibraryVersion(9, 0))
            #expect((device.multiprocessors, device.sharedMemory, device.cache) == (132, 232_448, 52_428_800))
        }
    }
}
