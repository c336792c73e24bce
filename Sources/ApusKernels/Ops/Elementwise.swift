public import ApusTensor
import CApusKernels

/// Element-wise passes, whole-tensor reductions and random fills.
public protocol ElementwiseOp {
    /// Sets every element of a dense `f32`, `bf16` or `i32` tensor.
    func fill(_ tensor: Tensor, with value: Float) throws
    /// Copies `source` into `target` of the same shape and type; both may be strided.
    func copy(_ source: Tensor, into target: Tensor) throws
    /// `target = left + right`; the target may be either operand. All dense.
    func add(_ left: Tensor, _ right: Tensor, into target: Tensor) throws
    /// `target += factor * source`; a `bf16` source may go into an `f32` target, and an `f32` one into a `bf16`. Dense.
    func addScaled(_ source: Tensor, factor: Float, into target: Tensor) throws
    /// `target = factor * source`. Dense.
    func scale(_ source: Tensor, by factor: Float, into target: Tensor) throws
    /// `target = left * right`, element by element. Dense.
    func multiply(_ left: Tensor, _ right: Tensor, into target: Tensor) throws
    /// Copies `source` into `target` of the other floating type, rounding to nearest even. Dense.
    func convert(_ source: Tensor, into target: Tensor) throws
    /// `target[r] = source[r] + bias` for rows (R, D) and a bias (D).
    func addBias(_ source: Tensor, bias: Tensor, into target: Tensor) throws
    /// `sums += ` the column sums of `source` (R, D): the gradient of a bias. `sums` is (D), `f32` or `bf16`.
    func addColumnSums(_ source: Tensor, into sums: Tensor) throws
    /// `result[0] = factor * sum` of a dense `f32` tensor, in a fixed order.
    func sum(_ tensor: Tensor, factor: Float, into result: Tensor) throws
    /// The number of elements that are not finite. Waits for the device.
    func countNonFinite(_ tensor: Tensor) throws -> Int
    /// Draws every element of a dense tensor. Element `i` depends on the stream and `first + i` alone.
    func fillRandom(_ tensor: Tensor, _ distribution: RandomDistribution, stream: RandomStream, first: UInt64) throws
}

/// What a random fill draws from.
public enum RandomDistribution: Sendable {
    /// Uniform over `low ..< high`.
    case uniform(low: Float, high: Float)
    /// Normal with the given mean and standard deviation.
    case normal(mean: Float, deviation: Float)
    /// Standard Gumbel, `-log(-log u)`; `f32` only.
    case gumbel
}

extension CPUBackend {
    /// Elements below which a pass is not worth a second thread.
    static let elementGrain = 16 * 1024

    /// Runs `body(begin, count)` over ranges of `count` elements in parallel.
    func overElements(_ count: Int, _ body: (_ begin: Int, _ count: Int) -> Void) {
        pool.forEachRange(count: count, grain: CPUBackend.elementGrain) { range, _ in
            body(range.lowerBound, range.count)
        }
    }

    /// Runs `body` over ranges of `rows` rows of `width` elements in parallel.
    func overRows(_ rows: Int, width: Int, _ body: (Range<Int>) -> Void) {
        pool.forEachRange(count: rows, grain: max(1, CPUBackend.elementGrain / max(width, 1))) { range, _ in body(range)
        }
    }
}

extension CPUBackend: ElementwiseOp {
    public func fill(_ tensor: Tensor, with value: Float) {
        precondition(tensor.isContiguous)
        overElements(tensor.count) { begin, count in
            switch tensor.dtype {
            case .f32: apus_fill_f32(tensor.pointer(to: Float.self) + begin, count, value)
            case .bf16: apus_fill_bf16(tensor.pointer(to: UInt16.self) + begin, count, value)
            case .i32: (tensor.pointer(to: Int32.self) + begin).update(repeating: Int32(value), count: count)
            case .u8: (tensor.pointer(to: UInt8.self) + begin).update(repeating: UInt8(value), count: count)
            }
        }
    }

    public func copy(_ source: Tensor, into target: Tensor) throws {
        precondition(source.shape == target.shape && source.dtype == target.dtype)
        try source.waitUntilReady()
        let bytes = source.dtype.byteCount(elements: source.rowCount)
        overRows(source.shape.rank == 0 ? 1 : source.shape[0], width: source.rowCount) { range in
            for row in range { target.rowPointer(row).copyMemory(from: source.rowPointer(row), byteCount: bytes) }
        }
    }

    public func add(_ left: Tensor, _ right: Tensor, into target: Tensor) throws {
        precondition(left.count == right.count && left.count == target.count)
        precondition(left.isContiguous && right.isContiguous && target.isContiguous)
        precondition(left.dtype == right.dtype && left.dtype == target.dtype)
        try left.waitUntilReady()
        try right.waitUntilReady()
        overElements(left.count) { begin, count in
            if left.dtype == .f32 {
                apus_add_f32(
                    target.pointer(to: Float.self) + begin, left.pointer(to: Float.self) + begin,
                    right.pointer(to: Float.self) + begin, count)
            } else {
                apus_add_bf16(
                    target.pointer(to: UInt16.self) + begin, left.pointer(to: UInt16.self) + begin,
                    right.pointer(to: UInt16.self) + begin, count)
            }
        }
    }

    public func addScaled(_ source: Tensor, factor: Float, into target: Tensor) throws {
        precondition(source.count == target.count && source.isContiguous && target.isContiguous)
        try source.waitUntilReady()
        try target.waitUntilReady()
        let count = source.count
        switch (source.dtype, target.dtype) {
        case (.f32, .f32):
            overElements(count) { begin, count in
                apus_add_scaled_f32(
                    target.pointer(to: Float.self) + begin, factor, source.pointer(to: Float.self) + begin, count)
            }
        case (.bf16, .bf16):
            overElements(count) { begin, count in
                apus_add_scaled_bf16(
                    target.pointer(to: UInt16.self) + begin, factor, source.pointer(to: UInt16.self) + begin, count)
            }
        case (.bf16, .f32):
            overElements(count) { begin, count in
                apus_add_scaled_bf16_to_f32(
                    target.pointer(to: Float.self) + begin, factor, source.pointer(to: UInt16.self) + begin, count)
            }
        case (.f32, .bf16):
            // The sum is formed in f32 and rounded once.
            let wide = try empty(target.shape, .f32, .workspace)
            try convert(target, into: wide)
            try addScaled(source, factor: factor, into: wide)
            try convert(wide, into: target)
        default: preconditionFailure("addScaled of \(source.dtype) into \(target.dtype)")
        }
    }

    public func scale(_ source: Tensor, by factor: Float, into target: Tensor) throws {
        precondition(source.count == target.count && source.isContiguous && target.isContiguous)
        try source.waitUntilReady()
        overElements(source.count) { begin, count in
            if source.dtype == .f32 {
                apus_scale_f32(
                    target.pointer(to: Float.self) + begin, source.pointer(to: Float.self) + begin, factor, count)
            } else {
                apus_scale_bf16(
                    target.pointer(to: UInt16.self) + begin, source.pointer(to: UInt16.self) + begin, factor, count)
            }
        }
    }

    public func multiply(_ left: Tensor, _ right: Tensor, into target: Tensor) throws {
        precondition(left.count == right.count && left.count == target.count)
        try left.waitUntilReady()
        try right.waitUntilReady()
        overElements(left.count) { begin, count in
            if left.dtype == .f32 {
                apus_multiply_f32(
                    target.pointer(to: Float.self) + begin, left.pointer(to: Float.self) + begin,
                    right.pointer(to: Float.self) + begin, count)
            } else {
                apus_multiply_bf16(
                    target.pointer(to: UInt16.self) + begin, left.pointer(to: UInt16.self) + begin,
                    right.pointer(to: UInt16.self) + begin, count)
            }
        }
    }

    public func convert(_ source: Tensor, into target: Tensor) throws {
        precondition(source.count == target.count && source.isContiguous && target.isContiguous)
        guard source.dtype != target.dtype else {
            return try copy(source.reshaped(source.count), into: target.reshaped(target.count))
        }
        try source.waitUntilReady()
        overElements(source.count) { begin, count in
            if source.dtype == .f32 {
                apus_convert_f32_to_bf16(
                    target.pointer(to: UInt16.self) + begin, source.pointer(to: Float.self) + begin, count)
            } else {
                apus_convert_bf16_to_f32(
                    target.pointer(to: Float.self) + begin, source.pointer(to: UInt16.self) + begin, count)
            }
        }
    }

    public func addBias(_ source: Tensor, bias: Tensor, into target: Tensor) throws {
        precondition(source.shape == target.shape && bias.count == source.rowCount && bias.dtype == source.dtype)
        try source.waitUntilReady()
        try bias.waitUntilReady()
        overRows(source.shape[0], width: source.rowCount) { range in
            let (from, to) = (source[range], target[range])
            if source.dtype == .f32 {
                apus_add_bias_f32(
                    to.pointer(), to.rowStride, from.pointer(), from.rowStride, bias.pointer(), range.count,
                    from.rowCount)
            } else {
                apus_add_bias_bf16(
                    to.pointer(), to.rowStride, from.pointer(), from.rowStride, bias.pointer(), range.count,
                    from.rowCount)
            }
        }
    }

    public func addColumnSums(_ source: Tensor, into sums: Tensor) throws {
        precondition(sums.count == source.rowCount)
        try source.waitUntilReady()
        try accumulateInFloat(sums) { wide in
            // Cut by columns, which keeps the order of each column's sum whatever the number of threads.
            pool.forEachRange(count: wide.count, grain: 64) { columns, _ in
                let piece = source.columns(columns)
                let target = wide.pointer(to: Float.self) + columns.lowerBound
                if source.dtype == .f32 {
                    apus_column_sums_f32(target, piece.pointer(), piece.rowStride, piece.shape[0], columns.count)
                } else {
                    apus_column_sums_bf16(target, piece.pointer(), piece.rowStride, piece.shape[0], columns.count)
                }
            }
        }
    }

    /// Gives `body` an `f32` tensor to add to: `target` itself, or, for a `bf16` gradient, a wide sum that is rounded once.
    func accumulateInFloat(_ target: Tensor, _ body: (Tensor) throws -> Void) throws {
        try target.waitUntilReady()
        if target.dtype == .f32 { return try body(target) }
        let wide = try empty(target.shape, .f32, .workspace)
        try convert(target, into: wide)
        try body(wide)
        try convert(wide, into: target)
    }

    public func sum(_ tensor: Tensor, factor: Float, into result: Tensor) throws {
        precondition(tensor.isContiguous)
        try tensor.waitUntilReady()
        let total = try sumOverBlocks(tensor) { begin, count in
            apus_sum_f32(tensor.pointer(to: Float.self) + begin, count)
        }
        result.pointer(to: Float.self)[0] = Float(Double(factor) * total)
    }

    /// Adds one partial sum for each fixed block of elements, in block order.
    func sumOverBlocks(_ tensor: Tensor, _ partial: (_ begin: Int, _ count: Int) -> Double) throws -> Double {
        let blockSize = 256 * 1024
        let blocks = (tensor.count + blockSize - 1) / blockSize
        guard blocks > 1 else { return tensor.count == 0 ? 0 : partial(0, tensor.count) }
        let storage = try allocator.allocate(byteCount: blocks * MemoryLayout<Double>.stride, purpose: .workspace)
        let partials = storage.pointer.bindMemory(to: Double.self, capacity: blocks)
        pool.run(parts: blocks) { block, _ in
            let begin = block * blockSize
            partials[block] = partial(begin, min(blockSize, tensor.count - begin))
        }
        return (0..<blocks).reduce(0) { $0 + partials[$1] }
    }

    public func countNonFinite(_ tensor: Tensor) throws -> Int {
        try tensor.waitUntilReady()
        return tensor.dtype == .f32
            ? apus_count_nonfinite_f32(tensor.pointer(to: Float.self), tensor.count, nil)
            : apus_count_nonfinite_bf16(tensor.pointer(to: UInt16.self), tensor.count, nil)
    }

    public func fillRandom(
        _ tensor: Tensor, _ distribution: RandomDistribution, stream: RandomStream, first: UInt64
    ) throws {
        precondition(tensor.isContiguous)
        if tensor.dtype == .bf16 {
            let wide = try empty(tensor.shape, .f32, .workspace)
            try fillRandom(wide, distribution, stream: stream, first: first)
            return try convert(wide, into: tensor)
        }
        let source = stream.kernelStream
        overElements(tensor.count) { begin, count in
            let target = tensor.pointer(to: Float.self) + begin
            let index = first + UInt64(begin)
            switch distribution {
            case .uniform(let low, let high): apus_random_uniform_f32(target, count, source, index, low, high)
            case .normal(let mean, let deviation): apus_random_normal_f32(target, count, source, index, mean, deviation)
            case .gumbel: apus_random_gumbel_f32(target, count, source, index)
            }
        }
    }
}

extension RandomStream {
    /// The stream as the C kernels take it.
    var kernelStream: apus_random_stream { apus_random_stream(seed: seed, word0: word0, word1: word1) }
}
