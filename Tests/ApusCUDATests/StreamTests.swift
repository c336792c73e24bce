import ApusKernels
import ApusTensor
import Synchronization
import Testing

@testable import ApusCUDA

extension CUDATests {
    @Suite struct `Streams and launches` {
        init() {
            FakeDriver.reset()
            FakeCompiler.reset()
        }

        @Test func `an op waits on the device for work of another stream`() throws {
            let backend = try FakeDriver.backend()
            let other = try CUDAStream(backend.queue.context)
            var x = try backend.empty(Shape(10), .f32)
            FakeDriver.state.withLock { $0.holdsEvents = true }
            x.ready = try other.record()
            _ = FakeDriver.takeCalls()
            try backend.fill(x, with: 1)
            #expect(
                FakeDriver.takeCalls("stream_wait_event", "launch")
                    == ["stream_wait_event", "launch fill_f32 (1, 1, 1) of (256, 1), 0 bytes"])
            #expect(backend.synchronizations == 0)
        }

        @Test func `an op waits on the host for work that the host will end`() throws {
            let backend = try FakeDriver.backend()
            struct Lost: Error {}
            var x = try backend.empty(Shape(10), .f32)
            let event = Event()
            event.signal(.failure(Lost()))
            x.ready = event
            _ = FakeDriver.takeCalls()
            #expect(throws: Lost.self) { try backend.fill(x, with: 1) }
            #expect(FakeDriver.takeCalls("launch").isEmpty)
        }

        @Test func `a step of ops waits for nothing`() throws {
            let backend = try FakeDriver.backend()
            FakeDriver.state.withLock { $0.holdsEvents = true }
            func step() throws {
                let x = try backend.tensor([Float](repeating: 1, count: 64), Shape(8, 8))
                let y = try backend.empty(Shape(8, 8), .f32)
                try backend.matMul(x.matrix, x.transpose, into: y)
                try backend.softmax(y, into: y)
                let order = try backend.sortByExpert(try backend.constant([0, 1, 2, 3]), experts: 4)
                try backend.gatherRows(x, index: order.rowToToken, scale: nil, into: y[0..<4])
                try backend.addColumnSums(y, into: try backend.empty(Shape(8), .f32))
            }
            for _ in 0..<5 { try step() }
            #expect(backend.synchronizations == 0)
        }

        @Test func `no elements, no launch`() throws {
            let backend = try FakeDriver.backend()
            let x = try backend.empty(Shape(0, 8), .f32)
            _ = FakeDriver.takeCalls()
            try backend.scale(x, by: 2, into: x)
            try backend.softmax(x, into: x)
            #expect(FakeDriver.takeCalls("launch").isEmpty)
        }

        @Test func `shared memory above the usual is asked for once`() throws {
            let backend = try FakeDriver.backend()
            let x = try backend.zeros(Shape(4, 6), .bf16)
            let weights = try backend.zeros(Shape(2, 6, 6), .bf16)
            let offsets = try backend.constant([0, 2, 4])
            _ = FakeDriver.takeCalls()
            for _ in 0..<2 {
                try backend.groupedMatMul(x, rows: nil, weights: weights, transposed: true, offsets: offsets, into: x)
            }
            #expect(
                FakeDriver.takeCalls("function_set", "launch") == [
                    "function_set_attribute 196608",
                    "launch grouped_transposed_bf16 (3, 1, 1) of (256, 1), 196608 bytes",
                    "launch grouped_transposed_bf16 (3, 1, 1) of (256, 1), 196608 bytes",
                ])
        }

        @Test func `rows for Hopper's products are gathered before, and mapped`() throws {
            let backend = try FakeDriver.backend()
            let (x, out) = (try backend.zeros(Shape(4, 8), .bf16), try backend.zeros(Shape(6, 8), .bf16))
            let weights = try backend.zeros(Shape(2, 8, 8), .bf16)
            let offsets = try backend.constant([0, 2, 6])
            let rows = try backend.constant([0, 1, 2, 3, 3, 0])
            _ = FakeDriver.takeCalls()
            try backend.groupedMatMul(x, rows: rows, weights: weights, transposed: true, offsets: offsets, into: out)
            #expect(
                FakeDriver.takeCalls("encode", "launch") == [
                    "launch gather_rows_bf16 (1, 1, 1) of (32, 8), 0 bytes", "encode_tensor_map", "encode_tensor_map",
                    "encode_tensor_map", "launch grouped_transposed_sm90a (132, 1, 1) of (384, 1), 232448 bytes",
                ])
        }

        @Test func `a launch that fails names the kernel`() throws {
            let backend = try FakeDriver.backend()
            let x = try backend.empty(Shape(10), .f32)
            let call = "launch fill_f32 (1, 1, 1) of (256, 1), 0 bytes"
            FakeDriver.state.withLock { $0.failures[call] = 700 }
            do {
                try backend.fill(x, with: 1)
                Issue.record("the launch failed")
            } catch {
                #expect("\(error)".hasPrefix("cuLaunchKernel of fill_f32, grid (x: 1, y: 1, z: 1)"))
            }
        }

        @Test func `arguments are where the driver is told, short and long`() {
            var arguments = ArgumentList()
            arguments.append(7)
            arguments.append([1, 2, 3])
            arguments.append((0..<400).map { UInt64($0) })
            arguments.append(9)
            let found = arguments.withPointers { pointers in
                [(0, 0), (1, 2), (2, 0), (2, 399), (3, 0)].map { argument, word in
                    pointers?[argument]?.load(fromByteOffset: 8 * word, as: UInt64.self)
                }
            }
            #expect(found == [7, 3, 0, 399, 9])
        }

        @Test func `launch shapes are those of the kernels' table`() {
            #expect(LaunchShape.flat(2049).grid.x == 2 && LaunchShape.flat(1 << 40).grid.x == 8192)
            let narrow = LaunchShape.rows(100, width: 100)
            #expect(narrow.block == (32, 8, 1) && narrow.grid.x == 13)
            let wide = LaunchShape.rows(100, width: 5000)
            #expect(wide.block == (256, 1, 1) && wide.grid.x == 100)
            #expect(LaunchShape.rows(1, width: 257).block == (64, 4, 1))
            let runs = LaunchShape.rowRuns(10_000, width: 4096, sums: 2)
            #expect(runs.block == (256, 1, 1) && runs.sharedBytes == 32_768 && runs.grid.x == 512)
            #expect(LaunchShape.rowRuns(64, width: 200, sums: 1).sharedBytes == 6400)
            #expect(LaunchShape.warps(9).grid.x == 2)
        }
    }
}
