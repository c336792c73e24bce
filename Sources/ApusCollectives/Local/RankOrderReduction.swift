import ApusTensor

/// Reduces the inputs of all ranks element by element, always in the order of ranks, so that the bits of a result do
/// not depend on who came first.
struct RankOrderReduction {
    private let reduction: Reduction
    private let dtype: DType
    private let inputs: [UnsafeRawPointer]

    /// Elements reduced at a time: 16 KiB of `f32`, which stay in the first cache.
    private static let blockSize = 4096

    init(_ reduction: Reduction, _ dtype: DType, _ inputs: [UnsafeRawPointer]) {
        self.reduction = reduction
        self.dtype = dtype
        self.inputs = inputs
    }

    /// Writes the reduction of `range` to the beginning of every output.
    ///
    /// An output may be the same memory as its own rank's input: a block is written after every rank's has been read.
    func reduce(_ range: Range<Int>, into outputs: [UnsafeMutableRawPointer]) {
        let size = RankOrderReduction.blockSize
        withUnsafeTemporaryAllocation(of: Float.self, capacity: min(size, range.count)) { total in
            for begin in stride(from: range.lowerBound, to: range.upperBound, by: size) {
                let count = min(size, range.upperBound - begin)
                let source = dtype.byteCount(elements: begin)
                let targets = outputs.map { $0 + dtype.byteCount(elements: begin - range.lowerBound) }
                if dtype == .i32 {
                    reduceIntegers(source, count, targets)
                } else {
                    reduceFloats(source, count, total, targets)
                }
            }
        }
    }

    private func reduceFloats(
        _ offset: Int, _ count: Int, _ total: UnsafeMutableBufferPointer<Float>, _ outputs: [UnsafeMutableRawPointer]
    ) {
        for (rank, input) in inputs.enumerated() {
            if dtype == .f32 {
                let values = (input + offset).assumingMemoryBound(to: Float.self)
                fold(total, count, isFirst: rank == 0) { values[$0] }
            } else {
                let values = (input + offset).assumingMemoryBound(to: UInt16.self)
                fold(total, count, isFirst: rank == 0) { Float(bitPattern: UInt32(values[$0]) << 16) }
            }
        }
        for output in outputs {
            if dtype == .f32 {
                let values = output.assumingMemoryBound(to: Float.self)
                for index in 0..<count { values[index] = total[index] }
            } else {
                let values = output.assumingMemoryBound(to: UInt16.self)
                for index in 0..<count { values[index] = roundedToBF16(total[index]) }
            }
        }
    }

    @inline(__always)
    private func fold(
        _ total: UnsafeMutableBufferPointer<Float>, _ count: Int, isFirst: Bool, _ value: (Int) -> Float
    ) {
        if isFirst {
            for index in 0..<count { total[index] = value(index) }
        } else if reduction == .sum {
            for index in 0..<count { total[index] += value(index) }
        } else {
            for index in 0..<count {
                let next = value(index)
                // Not a number wins, so that a maximum hides no fault.
                if next > total[index] || next.isNaN { total[index] = next }
            }
        }
    }

    private func reduceIntegers(_ offset: Int, _ count: Int, _ outputs: [UnsafeMutableRawPointer]) {
        for index in 0..<count {
            var total: Int32 = 0
            for (rank, input) in inputs.enumerated() {
                let value = (input + offset).assumingMemoryBound(to: Int32.self)[index]
                total = rank == 0 ? value : reduction == .sum ? total &+ value : max(total, value)
            }
            for output in outputs { output.assumingMemoryBound(to: Int32.self)[index] = total }
        }
    }
}

/// The bits of the `bf16` nearest to `value`, ties to even.
private func roundedToBF16(_ value: Float) -> UInt16 {
    let bits = value.bitPattern
    // A quiet bit, for the payload of a NaN may lie in the half that is cut off.
    if value.isNaN { return UInt16(truncatingIfNeeded: bits >> 16) | 0x40 }
    return UInt16(truncatingIfNeeded: (bits &+ 0x7FFF &+ (bits >> 16 & 1)) >> 16)
}
