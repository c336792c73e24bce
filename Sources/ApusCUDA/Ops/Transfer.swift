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
        try refuseWhileRecording("an upload of \(bytes.count) bytes")
        equalLengths.remember(bytes, in: target)
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
        try refuseWhileRecording("a download of \(source.shape) \(source.dtype)")
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

    public func download(_ sources: [Tensor]) throws -> [Tensor] {
        guard sources.allSatisfy({ $0.isContiguous && $0.dtype.byteCount == WordRuns.wordBytes }) else {
            return try sources.map { try download($0) }
        }
        let packed = try empty(Shape(sources.reduce(0) { $0 + $1.count }), .i32, .workspace)
        var begins = [0]
        for source in sources { begins.append(begins[begins.count - 1] + source.count) }
        for first in stride(from: 0, to: sources.count, by: WordRuns.most) {
            let range = first..<min(first + WordRuns.most, sources.count)
            for source in sources[range] { try wait(for: source) }
            let runs = WordRuns(from: sources[range].map(\.address), begins: Array(begins[first...range.upperBound]))
            try launch("pack_words", .blocks(range.count), packed, runs)
        }
        let host = try download(packed)
        return zip(sources, begins).map { source, begin in
            var part = Tensor(
                storage: host.storage, byteOffset: begin * WordRuns.wordBytes, shape: source.shape, dtype: source.dtype)
            part.ready = host.ready
            return part
        }
    }
}

/// Runs of words that one launch packs, passed by value; `Kernels/elementwise.cu` has the same.
private struct WordRuns: KernelArgument {
    static let wordBytes = 4
    /// Runs of one launch.
    static let most = 64
    /// Where each run is.
    let from: [UInt64]
    /// Where each begins in what is packed, and where the last ends.
    let begins: [Int]

    func append(to arguments: inout ArgumentList) {
        let unused = WordRuns.most - from.count
        arguments.append(
            from + Array(repeating: 0, count: unused) + begins.map { UInt64($0) } + Array(repeating: 0, count: unused))
    }
}
