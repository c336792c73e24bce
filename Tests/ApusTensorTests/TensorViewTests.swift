import ApusTensor
import ApusTestSupport
import Testing

@Suite struct `Tensor views` {
    let allocator = CachingAllocator()

    /// (rows, columns) with element `100 r + c`.
    func table(_ rows: Int, _ columns: Int) throws -> Tensor {
        let values = (0..<rows).flatMap { row in (0..<columns).map { Float(100 * row + $0) } }
        return try allocator.tensor(values, Shape(rows, columns))
    }

    @Test func `of rows start where the rows are`() throws {
        let rows = try table(5, 4)[2..<4]
        #expect(rows.shape == Shape(2, 4))
        #expect(rows.floats() == [200, 201, 202, 203, 300, 301, 302, 303])
        #expect(rows.isContiguous)
    }

    @Test func `of columns keep the stride of the whole`() throws {
        let columns = try table(3, 6).columns(2..<4)
        #expect(columns.rowStride == 6)
        #expect(!columns.isContiguous)
        #expect(columns.floats() == [2, 3, 102, 103, 202, 203])
        #expect(columns[1..<3].columns(1..<2).floats() == [103, 203])
    }

    @Test func `of columns can be grouped into heads without moving`() throws {
        let heads = try table(2, 8).columns(2..<6).reshaped(2, 2, 2)
        #expect(heads.shape == Shape(2, 2, 2))
        #expect(heads.floats() == [2, 3, 4, 5, 102, 103, 104, 105])
        #expect(heads.reshaped(2, 4).floats() == heads.floats())
    }

    @Test func `of a dense tensor take any shape of the same count`() throws {
        let tensor = try table(4, 6)
        #expect(tensor.reshaped(2, 3, 4).floats() == tensor.floats())
        #expect(tensor.reshaped(24).rowStride == 1)
    }

    @Test func `write through to what they are views of`() throws {
        let tensor = try table(3, 4)
        tensor.columns(1..<3)[1..<3].assign([Float(-1), -2, -3, -4])
        #expect(tensor.floats() == [0, 1, 2, 3, 100, -1, -2, 103, 200, -3, -4, 203])
    }

    @Test func `take values from memory and from elsewhere alike`() throws {
        let values = (0..<12).map(Float.init)
        for padding in [0, 3] {
            let direct = try allocator.floating(values, Shape(3, 4), rowPadding: padding)
            let lazy = try allocator.random(Shape(3, 4), seed: 1, rowPadding: padding)
            lazy.assign(values.lazy.map { $0 })
            #expect(direct.floats() == values)
            #expect(lazy.floats() == values)
        }
    }

    @Test func `keep the event that completes the whole`() throws {
        var tensor = try table(2, 2)
        let event = Event()
        tensor.ready = event
        #expect(tensor[0..<1].ready === event)
        #expect(tensor.columns(0..<1).ready === event)
        #expect(tensor.reshaped(4).ready === event)
    }

    @Test func `of a single row are dense whatever their stride`() throws {
        #expect(try table(3, 4).columns(1..<3)[1..<2].isContiguous)
    }

    @Test func `of no rows or no columns are empty`() throws {
        let tensor = try table(3, 4)
        #expect(tensor[1..<1].floats().isEmpty)
        #expect(tensor.columns(2..<2).floats().isEmpty)
        #expect(try allocator.empty(Shape(0, 4), .f32, .data).array(of: Float.self).isEmpty)
    }

    @Test func `tell whether they are alone on their storage`() throws {
        var tensor = try table(2, 2)
        let isAlone = tensor.isSoleOwnerOfStorage()
        let view = tensor[0..<1]
        let isStillAlone = tensor.isSoleOwnerOfStorage()
        #expect(isAlone && !isStillAlone)
        #expect(view.count == 2)
    }

    @Test func `of bf16 widen exactly`() throws {
        let values: [Float] = [0, -0.0, 1, -1.5, 3.140625, .infinity]
        let tensor = try allocator.tensor(values.map(bfloat16Bits), Shape(6))
        #expect(tensor.dtype == .bf16)
        #expect(tensor.floats().map(\.bitPattern) == values.map(\.bitPattern))
    }

    @Test func `outside of the storage are refused`() async {
        await #expect(processExitsWith: .failure) {
            let storage = try CachingAllocator().allocate(byteCount: 256, purpose: .data)
            _ = Tensor(storage: storage, byteOffset: 4, shape: Shape(8, 8), dtype: .f32)
        }
        await #expect(processExitsWith: .failure) {
            _ = try CachingAllocator().empty(Shape(3, 4), .f32, .data)[2..<4]
        }
    }
}
