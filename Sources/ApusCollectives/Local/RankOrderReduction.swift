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
        withUnsafeTemporaryAllocation(byteCount: min(size, range.count) * 4, alignment: 64) { workspace in
            guard let total = workspace.baseAddress else { return }
            for begin in stride(from: range.lowerBound, to: range.upperBound, by: size) {
                let count = min(size, range.upperBound - begin)
                let source = dtype.byteCount(elements: begin)
                let targets = outputs.map { $0 + dtype.byteCount(elements: begin - range.lowerBound) }
                if dtype == .i32 {
                    reduceIntegers(source, count, total.assumingMemoryBound(to: Int32.self), targets)
                } else {
                    reduceFloats(source, count, total.assumingMemoryBound(to: Float.self), targets)
                }
            }
        }
    }

    private func reduceFloats(
        _ offset: Int, _ count: Int, _ total: UnsafeMutablePointer<Float>, _ outputs: [UnsafeMutableRawPointer]
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
                output.copyMemory(from: total, byteCount: dtype.byteCount(elements: count))
            } else {
                let values = output.assumingMemoryBound(to: UInt16.self)
                for index in 0..<count { values[index] = roundedToBF16(total[index]) }
            }
        }
    }

    @inline(__always)
    private func fold(_ total: UnsafeMutablePointer<Float>, _ count: Int, isFirst: Bool, _ value: (Int) -> Float) {
        switch reduction {
        case _ where isFirst:
            for index in 0..<count { total[index] = value(index) }
        case .sum:
            for index in 0..<count { total[index] += value(index) }
        case .max:
            for index in 0..<count {
                let next = value(index)
                // Not a number wins, so that a maximum hides no fault.
                total[index] = next > total[index] || next.isNaN ? next : total[index]
            }
        }
    }

    private func reduceIntegers(
        _ offset: Int, _ count: Int, _ total: UnsafeMutablePointer<Int32>, _ outputs: [UnsafeMutableRawPointer]
    ) {
        for (rank, input) in inputs.enumerated() {
            let values = (input + offset).assumingMemoryBound(to: Int32.self)
            switch reduction {
            case _ where rank == 0: total.update(from: values, count: count)
            case .sum: for index in 0..<count { total[index] &+= values[index] }
            case .max: for index in 0..<count { total[index] = max(total[index], values[index]) }
            }
        }
        for output in outputs { output.copyMemory(from: total, byteCount: dtype.byteCount(elements: count)) }
    }
}

/// The bits of the `bf16` nearest to `value`, ties to even.
@inline(__always)
func roundedToBF16(_ value: Float) -> UInt16 {
    let bits = value.bitPattern
    // A quiet bit, for the payload of a NaN may lie in the half that is cut off. Both results are computed, and the upper
    // half is taken with its sign: so a loop over this becomes vector instructions of any processor.
    let whole = value == value ? bits &+ 0x7FFF &+ (bits >> 16 & 1) : bits | 0x40_0000
    return UInt16(bitPattern: Int16(truncatingIfNeeded: Int32(bitPattern: whole) >> 16))
}
