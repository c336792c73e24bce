public import ApusKernels
public import ApusTensor
import CApusDrivers

extension CUDABackend: TransferOp {
    /// Bytes that are staged at a time, and the most that are held for copies under way.
    private static let stagedBytes = 16 << 20
    private static let mostStagedBytes = 256 << 20

    public func upload(_ bytes: UnsafeRawBufferPointer, into target: Tensor) throws {
        precondition(
            bytes.count == target.dtype.byteCount(elements: target.count), "\(bytes.count) bytes for \(target.shape)")
        try wait(for: target)
        guard target.isContiguous else {
            let dense = try empty(target.shape, target.dtype, .workspace)
            try upload(bytes, into: dense)
            return try copy(dense, into: target)
        }
        let driver = queue.context.driver
        try queue.context.makeCurrent()
        for begin in stride(from: 0, to: bytes.count, by: CUDABackend.stagedBytes) {
            let piece = UnsafeRawBufferPointer(
                rebasing: bytes[begin..<min(begin + CUDABackend.stagedBytes, bytes.count)])
            if pinned.statistics.cached > CUDABackend.mostStagedBytes { try synchronize() }
            let staged = try pinned.allocate(byteCount: piece.count, purpose: .data)
            guard let source = piece.baseAddress else { return }
            staged.pointer.copyMemory(from: source, byteCount: piece.count)
            try driver.check(
                driver.functions.copy_to_device(
                    target.address + UInt64(begin), staged.pointer, piece.count, queue.handle),
                "cuMemcpyHtoDAsync of \(piece.count) bytes")
            staged.keep(until: try queue.record())
        }
    }

    public func download(_ source: Tensor) throws -> Tensor {
        let dense = try dense(source)
        try wait(for: dense)
        var result = try pinned.empty(dense.shape, dense.dtype, .data)
        guard dense.count > 0 else { return result }
        let driver = queue.context.driver
        try queue.context.makeCurrent()
        let bytes = dense.dtype.byteCount(elements: dense.count)
        try driver.check(
            driver.functions.copy_to_host(result.rawPointer, dense.address, bytes, queue.handle),
            "cuMemcpyDtoHAsync of \(bytes) bytes")
        let done = try queue.record()
        result.storage.keep(until: done)
        result.ready = done
        return result
    }
}
