import ApusKernels
import ApusTensor
import CApusDrivers
import Synchronization
import Testing

@testable import ApusCUDA

extension CUDATests {
    @Suite struct `Memory of a device` {
        init() { FakeDriver.reset() }

        @Test func `a steady step asks the driver for nothing`() throws {
            let allocator = CachingAllocator(source: DeviceMemory(context: try FakeDriver.context()))
            func step() throws {
                let activations = try allocator.empty(Shape(100, 30), .bf16, .activations)
                _ = try allocator.empty(activations.shape, .f32, .workspace)
            }
            try step()
            _ = FakeDriver.takeCalls()
            for _ in 0..<20 { try step() }
            #expect(FakeDriver.takeCalls("allocate", "free") == [])
            #expect(allocator.device == .cuda(0))
        }

        @Test func `running out names the request, what is held and the keys to lower`() throws {
            FakeDriver.state.withLock { $0.capacity = 10 << 20 }
            let backend = try FakeDriver.backend()
            let weights = try backend.empty(Shape(2 << 20), .f32, .parameters)
            do {
                _ = try backend.empty(Shape(1 << 20), .f32, .activations)
                Issue.record("12 MiB in 10")
            } catch {
                #expect(
                    "\(error)" == """
                        out of memory: 4 MiB asked for activations; held 8 MiB of the 10 MiB allowed \
                        (parameters 8 MiB). Lower model.layers, model.width, model.experts.count; for less activations: \
                        data.sequence_length, training.micro_batch, or training.checkpointing: true.
                        """)
            }
            #expect(weights.count == 2 << 20)
        }

        @Test func `cached blocks go back before a request is refused`() throws {
            FakeDriver.state.withLock { $0.capacity = 10 << 20 }
            let allocator = CachingAllocator(source: DeviceMemory(context: try FakeDriver.context()))
            _ = try allocator.allocate(byteCount: 6 << 20, purpose: .activations)
            let storage = try allocator.allocate(byteCount: 8 << 20, purpose: .activations)
            #expect(FakeDriver.takeCalls("free") == ["free"] && storage.byteCount == 8 << 20)
        }

        @Test func `a failing device is not taken for a full one`() throws {
            let backend = try FakeDriver.backend()
            FakeDriver.state.withLock { $0.failures["allocate"] = 700 }
            do {
                _ = try backend.empty(Shape(4), .f32)
                Issue.record("the device failed")
            } catch {
                let text = "\(error)"
                #expect(text.hasPrefix("cuMemAlloc failed: CUDA_ERROR_ILLEGAL_ADDRESS (700), an illegal memory access"))
                #expect(text.contains("at ApusCUDA/DeviceMemory.swift:"))
            }
        }

        @Test func `a block that another stream uses is handed out after that use`() throws {
            let context = try FakeDriver.context()
            let allocator = CachingAllocator(source: DeviceMemory(context: context))
            let other = try CUDAStream(context)
            FakeDriver.state.withLock { $0.holdsEvents = true }
            func use() throws -> UnsafeMutableRawPointer {
                let storage = try allocator.allocate(byteCount: 4096, purpose: .activations)
                storage.keep(until: try other.record())
                return storage.pointer
            }
            let first = try use()
            #expect(allocator.statistics.totalLive == 0 && allocator.statistics.cached == 4096)
            #expect(try allocator.allocate(byteCount: 4096, purpose: .activations).pointer != first)
            FakeDriver.finishEvents()
            let blocks = try (0..<2).map { _ in try allocator.allocate(byteCount: 4096, purpose: .activations) }
            #expect(blocks.contains { $0.pointer == first })
            #expect(context.synchronizations == 0)
        }

        @Test func `a full device waits for such a block rather than refuse`() throws {
            FakeDriver.state.withLock {
                $0.capacity = 6 << 20
                $0.holdsEvents = true
            }
            let context = try FakeDriver.context()
            let allocator = CachingAllocator(source: DeviceMemory(context: context))
            let other = try CUDAStream(context)
            do {
                let storage = try allocator.allocate(byteCount: 4 << 20, purpose: .activations)
                storage.keep(until: try other.record())
            }
            let next = try allocator.allocate(byteCount: 4 << 20, purpose: .activations)
            #expect(next.byteCount == 4 << 20 && FakeDriver.takeCalls("event_synchronize").count == 1)
        }

        @Test func `everything goes back at the end`() throws {
            do {
                let backend = try FakeDriver.backend()
                let x = try backend.tensor([1, 2, 3] as [Float], Shape(3))
                #expect(try backend.floats(x) == [1, 2, 3])
                #expect(!FakeDriver.state.withLock { $0.live.isEmpty })
            }
            #expect(FakeDriver.state.withLock { $0.live.isEmpty })
        }
    }
}
