import ApusTensor
import Glibc

@testable import ApusCollectives

/// Sizes of the worlds that every operation is tried in.
let worldSizes = [1, 2, 3, 4, 7]

/// A value that tells its rank and place, small enough that sums over ranks are exact in every type.
func sample(rank: Int, index: Int) -> Int { (rank * 5 + index * 3) % 11 - 5 }

extension CachingAllocator {
    /// A tensor of whole numbers in any arithmetic type.
    func whole(_ values: [Int], _ dtype: DType, _ shape: Shape? = nil) throws -> Tensor {
        let shape = shape ?? Shape(values.count)
        switch dtype {
        case .f32: return try tensor(values.map(Float.init), shape)
        case .bf16: return try tensor(values.map { UInt16(truncatingIfNeeded: Float($0).bitPattern >> 16) }, shape)
        case .i32: return try tensor(values.map(Int32.init), shape)
        case .u8: return try tensor(values.map { UInt8(truncatingIfNeeded: $0) }, shape)
        }
    }

    /// A tensor that holds a value which no test expects.
    func untouched(_ shape: Shape, _ dtype: DType = .i32) throws -> Tensor {
        try whole(Array(repeating: -99, count: shape.count), dtype, shape)
    }
}

extension Tensor {
    /// The whole numbers of a tensor.
    var wholeNumbers: [Int] {
        switch dtype {
        case .f32, .bf16: floats().map { Int($0) }
        case .i32: array(of: Int32.self).map(Int.init)
        case .u8: array(of: UInt8.self).map(Int.init)
        }
    }
}

/// What `body` threw, if it was a failure of a collective.
func collectiveError(_ body: () throws -> Void) -> CollectiveError? {
    do {
        try body()
        return nil
    } catch {
        return error as? CollectiveError
    }
}

/// Lets a rank be late.
func pause(milliseconds: Int) { usleep(UInt32(milliseconds * 1000)) }
