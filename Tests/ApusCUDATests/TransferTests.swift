import ApusKernels
import ApusTensor
import Synchronization
import Testing

@testable import ApusCUDA

extension CUDATests {
    @Suite struct `Copies between host and device` {
        init() { FakeDriver.reset() }

        @Test func `elements go there and back`() throws {
            let backend = try FakeDriver.backend()
            let values = (0..<1000).map { Int32($0 * 7 - 300) }
            let tensor = try backend.tensor(values, Shape(10, 100))
            #expect(tensor.device == .cuda(0))
            #expect(try backend.array(tensor) == values)
            #expect(try backend.array(tensor[3..<5]) == Array(values[300..<500]))
        }

        @Test func `an upload does not wait, a download waits when it is read`() throws {
            let backend = try FakeDriver.backend()
            FakeDriver.state.withLock { $0.holdsEvents = true }
            let tensor = try backend.tensor([1, 2] as [Float], Shape(2))
            let host = try backend.download(tensor)
            #expect(backend.synchronizations == 0 && host.device == .cpu)
            #expect(host.ready?.isComplete == false)
            #expect(host.floats() == [1, 2])
            #expect(backend.synchronizations == 1)
            #expect(host.floats() == [1, 2] && backend.synchronizations == 1)
        }

        @Test func `a staging buffer is not filled again while it is being copied`() throws {
            let backend = try FakeDriver.backend()
            FakeDriver.state.withLock { $0.holdsEvents = true }
            for step in 0..<3 { _ = try backend.tensor([Float(step)], Shape(1)) }
            #expect(FakeDriver.takeCalls("allocate_host").count == 3)
            FakeDriver.finishEvents()
            for step in 0..<3 { _ = try backend.tensor([Float(step)], Shape(1)) }
            #expect(FakeDriver.takeCalls("allocate_host").isEmpty)
        }

        @Test func `a large upload is staged in pieces`() throws {
            let backend = try FakeDriver.backend()
            let values = (0..<(9 << 20)).map { Float($0 % 1000) }
            let tensor = try backend.tensor(values, Shape(values.count))
            #expect(FakeDriver.takeCalls("copy_to_device").count == 3)
            #expect(try backend.array(tensor, of: Float.self) == values)
        }

        @Test func `an index that stays the same is uploaded once`() throws {
            let backend = try FakeDriver.backend()
            let first = try backend.constant([0, 5, 9])
            _ = FakeDriver.takeCalls()
            let second = try backend.constant([0, 5, 9])
            #expect(FakeDriver.takeCalls("copy_to_device").isEmpty)
            #expect(first.storage === second.storage)
            #expect(try backend.array(second, of: Int32.self) == [0, 5, 9])
        }

        @Test func `a copy that fails says which`() throws {
            let backend = try FakeDriver.backend()
            FakeDriver.state.withLock { $0.failures["copy_to_device"] = 700 }
            do {
                _ = try backend.tensor([1] as [Float], Shape(1))
                Issue.record("the copy failed")
            } catch {
                #expect("\(error)".hasPrefix("cuMemcpyHtoDAsync of 4 bytes failed: CUDA_ERROR_ILLEGAL_ADDRESS (700)"))
            }
        }
    }
}
