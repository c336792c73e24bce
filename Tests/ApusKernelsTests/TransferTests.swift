import ApusKernels
import ApusTensor
import Testing

@Suite struct `Transfers on the host` {
    private let backend = CPUBackend(threadCount: 1)

    @Test func `an upload fills whole tensors and strided ones`() throws {
        let whole = try backend.zeros(Shape(3, 4), .f32)
        try backend.upload((0..<6).map { Float($0) }, into: whole.columns(1..<3))
        #expect(whole.floats() == [0, 0, 1, 0, 0, 2, 3, 0, 0, 4, 5, 0])
        #expect(try backend.tensor([7, 8] as [Int32], Shape(2)).array(of: Int32.self) == [7, 8])
        let empty = try backend.tensor([] as [Float], Shape(0, 4))
        #expect(empty.count == 0)
    }

    @Test func `a download is the tensor itself`() throws {
        let tensor = try backend.tensor([1, 2, 3] as [Float], Shape(3))
        #expect(backend.download(tensor).storage === tensor.storage)
        #expect(try backend.floats(tensor) == [1, 2, 3])
        #expect(try backend.array(tensor, of: Float.self) == [1, 2, 3])
    }

    @Test func `reading reports what the contents failed with`() throws {
        struct Lost: Error {}
        var tensor = try backend.tensor([1] as [Float], Shape(1))
        let event = Event()
        event.signal(.failure(Lost()))
        tensor.ready = event
        #expect(throws: Lost.self) { try backend.floats(tensor) }
    }
}
