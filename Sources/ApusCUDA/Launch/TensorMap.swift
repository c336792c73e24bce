import ApusTensor
import CApusDrivers

/// How the copy engine of Hopper finds boxes of a tensor in memory; what lies outside of it reads as 0.
struct TensorMap: KernelArgument {
    private let words: [UInt64]
    private let tensor: Tensor

    /// A map of a matrix, or of a stack of matrices, for boxes of 128 bytes by `boxRows` rows of `planes` matrices.
    init(_ tensor: Tensor, boxRows: Int, planes: Int = 1, driver: CUDADriver) throws(CUDAError) {
        precondition(TensorMap.fits(tensor), "\(tensor.shape) \(tensor.dtype) is not for the copy engine")
        let (rank, size) = (tensor.shape.rank, tensor.dtype.byteCount)
        let extents = tensor.shape.dimensions.reversed().map { UInt64($0) }
        let box = [UInt32(128 / size), UInt32(boxRows), UInt32(planes)].prefix(rank)
        let code = withUnsafeTemporaryAllocation(byteCount: TensorMap.byteCount, alignment: 64) { map in
            guard let to = map.baseAddress, let from = UnsafeMutableRawPointer(bitPattern: UInt(tensor.address)) else {
                preconditionFailure("a tensor without an address")
            }
            let code = driver.functions.encode_tensor_map(
                to, tensor.dtype == .bf16 ? APUS_CU_TENSOR_MAP_BF16 : APUS_CU_TENSOR_MAP_F32, UInt32(rank), from,
                extents, TensorMap.strides(of: tensor).map { UInt64($0) }, Array(box), [1, 1, 1],
                APUS_CU_TENSOR_MAP_PLAIN, APUS_CU_TENSOR_MAP_SWIZZLE_128, APUS_CU_TENSOR_MAP_FETCH_256,
                APUS_CU_TENSOR_MAP_ZEROS)
            return (code, Array(map.bindMemory(to: UInt64.self)))
        }
        try driver.check(code.0, "cuTensorMapEncodeTiled of \(tensor.shape) \(tensor.dtype)")
        words = code.1
        self.tensor = tensor
    }

    /// Whether the copy engine takes a tensor: its address and strides are multiples of 16 bytes, its rows of 8 elements.
    static func fits(_ tensor: Tensor) -> Bool {
        tensor.dtype.isFloating && (2...3).contains(tensor.shape.rank) && tensor.count > 0 && tensor.shape[-1] % 8 == 0
            && tensor.byteOffset % 16 == 0 && strides(of: tensor).allSatisfy { $0 % 16 == 0 }
    }

    /// Bytes between rows, and between matrices of a stack.
    private static func strides(of tensor: Tensor) -> [Int] {
        let outer = tensor.dtype.byteCount(elements: tensor.rowStride)
        return tensor.shape.rank == 2 ? [outer] : [tensor.dtype.byteCount(elements: tensor.shape[2]), outer]
    }

    private static let byteCount = MemoryLayout<apus_cu_tensor_map>.size

    func append(to arguments: inout ArgumentList) { arguments.append(words, of: tensor) }
}
