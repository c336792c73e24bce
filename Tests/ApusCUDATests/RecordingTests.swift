import ApusKernels
import ApusTensor
import Synchronization
import Testing

@testable import ApusCUDA

extension CUDATests {
    @Suite struct `Recorded work` {
        init() {
            FakeDriver.reset()
            FakeCompiler.reset()
        }

        @Test func `is given to the device by one call`() throws {
            let backend = try FakeDriver.backend()
            let x = try backend.zeros(Shape(100), .f32)
            _ = FakeDriver.takeCalls()
            let work = try backend.record { for _ in 0..<5 { try backend.scale(x, by: 2, into: x) } }
            #expect(FakeDriver.takeCalls("launch").count == 5)
            for _ in 0..<3 { try work.run() }
            #expect(FakeDriver.takeCalls() == ["graph_launch", "graph_launch", "graph_launch"])
        }

        @Test func `keeps its memory from everybody else as long as it lives`() throws {
            let backend = try FakeDriver.backend()
            let outer = try backend.empty(Shape(1000), .f32)
            var addresses: [UInt64] = []
            var released: Tensor? = try backend.empty(Shape(1000), .f32)
            let before = try #require(released).deviceAddress
            var work: (any RecordedWork)? = try backend.record {
                released = nil
                for _ in 0..<3 {
                    let inner = try backend.empty(Shape(1000), .f32)
                    try backend.scale(outer, by: 2, into: inner)
                    addresses.append(inner.deviceAddress)
                }
            }
            // Reused inside in the order of the stream, as it is outside.
            #expect(Set(addresses) == [before] && addresses.count == 3)
            let others = try (0..<4).map { _ in try backend.empty(Shape(1000), .f32) }
            #expect(!others.contains { addresses.contains($0.deviceAddress) })
            #expect(backend.allocator.statistics.cached >= 4000 && work != nil)
            work = nil
            #expect(try addresses.contains(backend.empty(Shape(1000), .f32).deviceAddress))
        }

        @Test func `lets a tensor that was made inside outlive it`() throws {
            let backend = try FakeDriver.backend()
            var kept: Tensor?
            var work: (any RecordedWork)? = try backend.record { kept = try backend.empty(Shape(500), .f32) }
            let address = try #require(kept).deviceAddress
            #expect(work != nil)
            work = nil
            #expect(try backend.empty(Shape(500), .f32).deviceAddress != address)
            kept = nil
            #expect(try backend.empty(Shape(500), .f32).deviceAddress == address)
        }

        @Test func `moves nothing between host and device`() throws {
            let backend = try FakeDriver.backend()
            let x = try backend.zeros(Shape(10), .f32)
            for body in [
                { _ = try backend.download(x) }, { _ = try backend.tensor([1] as [Float], Shape(1)) },
                { _ = try backend.constant([5, 6]) },
            ] {
                let error = #expect(throws: RecordingError.self) { _ = try backend.record(body) }
                #expect("\(try #require(error))".contains("do it before"))
            }
            // The stream goes on, and a table that is there already can be used, and is held.
            var table: Tensor? = try backend.constant([5, 6])
            let address = try #require(table).deviceAddress
            let work = try backend.record { _ = try backend.constant([5, 6]) }
            table = nil
            backend.constants.withLock { $0.removeAll() }
            #expect(try backend.empty(Shape(2), .i32).deviceAddress != address)
            try work.run()
        }

        @Test func `that the device refuses says so, and takes nothing`() throws {
            let backend = try FakeDriver.backend()
            FakeDriver.state.withLock { $0.failures["graph_instantiate"] = 1 }
            #expect(throws: CUDAError.self) { try backend.record { _ = try backend.empty(Shape(300), .f32) } }
            #expect(backend.allocator.statistics.totalLive == 0)
            #expect(FakeDriver.takeCalls("graph_destroy") == ["graph_destroy"])
        }
    }
}
