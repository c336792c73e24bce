import ApusKernels
import ApusTensor
import ApusTestSupport
import Testing

@Suite struct `Element-wise passes` {
    let backend = CPUBackend(threadCount: 2)
    /// Odd sizes, and one that is cut over threads.
    static let counts = oddSizes + [70_001]

    @Test(arguments: counts, floatingTypes)
    func `add, scale and multiply`(count: Int, dtype: DType) throws {
        let (a, b) = (
            try backend.random(count, dtype: dtype, seed: 1), try backend.random(count, dtype: dtype, seed: 2)
        )
        let (x, y) = (a.doubles, b.doubles)
        let target = try backend.sentinel(count, dtype: dtype)
        try backend.add(a, b, into: target)
        expectClose(target, zip(x, y).map(+), "sum")
        try backend.multiply(a, b, into: target)
        expectClose(target, zip(x, y).map(*), "product")
        try backend.scale(a, by: -2.5, into: target)
        expectClose(target, x.map { -2.5 * $0 }, "multiple")
        try backend.add(a, b, into: a)
        expectClose(a, zip(x, y).map(+), "sum in place")
    }

    @Test(arguments: counts, [(DType.f32, DType.f32), (.bf16, .bf16), (.bf16, .f32), (.f32, .bf16)])
    func `add multiples across types`(count: Int, types: (source: DType, target: DType)) throws {
        let source = try backend.random(count, dtype: types.source, seed: 1)
        let target = try backend.random(count, dtype: types.target, seed: 2)
        let expected = zip(source.doubles, target.doubles).map { 0.75 * $0 + $1 }
        try backend.addScaled(source, factor: 0.75, into: target)
        expectClose(target, expected, "\(types)")
    }

    @Test func `leave the workspace account as they found it`() throws {
        let source = try backend.random(100, seed: 1)
        let target = try backend.random(100, dtype: .bf16, seed: 2)
        try expectNoLeak(in: backend.allocator) { try backend.addScaled(source, factor: 2, into: target) }
    }

    @Test(arguments: counts)
    func `round to the nearest bf16, to even on a tie, and widen exactly`(count: Int) throws {
        let wide = try backend.random(count, seed: 1, scale: 100)
        let narrow = try backend.empty(Shape(count), .bf16)
        try backend.convert(wide, into: narrow)
        #expect(narrow.array(of: UInt16.self) == wide.floats().map(bfloat16Bits))
        let back = try backend.empty(Shape(count), .f32)
        try backend.convert(narrow, into: back)
        #expect(back.floats() == narrow.floats())
    }

    @Test func `round ties, infinities and NaN`() throws {
        let cases: [(UInt32, UInt16)] = [
            (0x3f80_8000, 0x3f80), (0x3f81_8000, 0x3f82), (0x3f80_8001, 0x3f81), (0xbf80_8000, 0xbf80),
            (0x7f80_0000, 0x7f80), (0xff80_0000, 0xff80), (0x7f7f_ffff, 0x7f80), (0x8000_0000, 0x8000), (0, 0),
        ]
        let wide = try backend.allocator.tensor(cases.map { Float(bitPattern: $0.0) }, Shape(cases.count))
        let narrow = try backend.empty(wide.shape, .bf16)
        try backend.convert(wide, into: narrow)
        #expect(narrow.array(of: UInt16.self) == cases.map(\.1))
        // The low bits of a NaN must not carry it into infinity.
        for bits: UInt32 in [0x7fc0_0000, 0x7f80_0001, 0xffff_ffff, 0x7fff_ffff] {
            wide.assign(Array(repeating: Float(bitPattern: bits), count: cases.count))
            try backend.convert(wide, into: narrow)
            #expect(narrow.floats().allSatisfy { $0.isNaN }, "\(String(bits, radix: 16))")
        }
    }

    @Test(arguments: [(1, 1), (17, 33), (257, 100), (900, 64)], floatingTypes)
    func `add a bias to rows, and sum columns`(size: (rows: Int, width: Int), dtype: DType) throws {
        let (rows, width) = size
        let x = try backend.random(rows, width, dtype: dtype, seed: 1, rowPadding: 3)
        let bias = try backend.random(width, dtype: dtype, seed: 2)
        let y = try backend.sentinel(rows, width, dtype: dtype, rowPadding: 1)
        try backend.addBias(x, bias: bias, into: y)
        let (values, offsets) = (x.doubles, bias.doubles)
        expectClose(y, values.indices.map { values[$0] + offsets[$0 % width] }, "bias")
        for sumType in floatingTypes {
            let sums = try backend.random(width, dtype: sumType, seed: 3)
            var expected = sums.doubles
            for index in values.indices { expected[index % width] += values[index] }
            try backend.addColumnSums(x, into: sums)
            expectClose(sums, expected, "column sums \(size) \(dtype) into \(sumType)")
        }
        try backend.addBias(x, bias: bias, into: x)
        expectSameBits(try backend.duplicate(x), try backend.duplicate(y), "bias in place")
    }

    @Test(arguments: [1, 17, 1000, 262_144, 600_001], floatingTypes)
    func `reduce whole tensors in a fixed order`(count: Int, dtype: DType) throws {
        let x = try backend.random(count, dtype: dtype, seed: 1)
        let result = try backend.allocator.tensor([Float(3)], Shape(1))
        let squares = x.doubles.reduce(0) { $0 + $1 * $1 }
        try backend.gradientSquares([x], into: result)
        expectClose(result, [squares], "sum of squares")
        try backend.gradientSquares([x, try backend.allocator.tensor([Float(3)], Shape(1)), x], into: result)
        expectClose(result, [2 * squares + 9], "sum of squares of several")
        guard dtype == .f32 else { return }
        let shifted = try backend.allocator.tensor(x.floats().map { $0 + 1 }, Shape(count))
        try backend.sum(shifted, factor: 0.5, into: result)
        expectClose(result, [shifted.doubles.reduce(0, +) / 2], "sum")
    }

    @Test(arguments: floatingTypes)
    func `find what is not finite`(dtype: DType) throws {
        var values = randomValues(1000, seed: 1)
        for (place, value) in zip([0, 17, 500, 999], [Float.nan, .infinity, -.infinity, -.nan]) {
            values[place] = value
        }
        #expect(try backend.countNonFinite(try backend.allocator.floating(values, Shape(1000), dtype)) == 4)
        #expect(try backend.countNonFinite(try backend.random(1000, dtype: dtype, seed: 2, scale: 1e30)) == 0)
    }

    @Test(arguments: floatingTypes)
    func `copy between strides`(dtype: DType) throws {
        let source = try backend.random(40, 17, dtype: dtype, seed: 1, rowPadding: 4)
        let target = try backend.sentinel(40, 17, dtype: dtype, rowPadding: 9)
        try backend.copy(source, into: target)
        #expect(source.floats() == target.floats())
        let row = try backend.random(33, dtype: dtype, seed: 2)
        #expect(try backend.duplicate(row).floats() == row.floats())
    }

    @Test func `fill every type`() throws {
        for count in Self.counts {
            for dtype in DType.allCases {
                let tensor = try backend.empty(Shape(count), dtype)
                try (backend as any Backend).fill(tensor, with: 3)
                let value: UInt32 = dtype == .f32 ? Float(3).bitPattern : dtype == .bf16 ? UInt32(bfloat16Bits(3)) : 3
                #expect(tensor.bits.allSatisfy { $0 == value })
            }
        }
    }

    @Test(arguments: floatingTypes)
    func `do not depend on the number of threads`(dtype: DType) throws {
        try expectSameBitsForAnyThreadCount("passes") { backend in
            let x = try backend.random(600, 1001, dtype: dtype, seed: 1)
            let (sums, total) = (try backend.zeros(Shape(1001), .f32), try backend.zeros(Shape(1), .f32))
            let y = try backend.duplicate(x)
            try backend.addScaled(x, factor: 0.3, into: y)
            try backend.addColumnSums(x, into: sums)
            try backend.gradientSquares([x], into: total)
            return [y, sums, total]
        }
    }

    @Test func `wait for what they read, and pass its error on`() throws {
        struct Broken: Error {}
        var late = try backend.random(10, seed: 1)
        let event = Event()
        event.signal(.failure(Broken()))
        late.ready = event
        let target = try backend.empty(Shape(10), .f32)
        #expect(throws: Broken.self) { try backend.add(late, late, into: target) }
        #expect(throws: Broken.self) { try backend.copy(late, into: target) }
        let square = try backend.empty(Shape(2, 2), .f32)
        let matrix = late.reshaped(2, 5)
        #expect(throws: Broken.self) { try backend.matMul(matrix.matrix, matrix.transpose, into: square) }
    }
}
