package import ApusKernels
package import ApusTensor

extension Backend {
    /// Calls `body` with the bytes of a dense tensor, piece by piece in their order, on the host: at least once, if only
    /// with nothing.
    ///
    /// The next piece is on its way from the device while `body` has the one before.
    package func forEachPiece(
        of tensor: Tensor, byteCount: Int = 64 << 20, _ body: (UnsafeRawBufferPointer) throws -> Void
    ) throws {
        precondition(tensor.isContiguous, "pieces of a tensor that is not dense")
        let elements = tensor.reshaped(tensor.count)
        let size = max(byteCount / tensor.dtype.byteCount, 1)
        func piece(from first: Int) throws -> Tensor? {
            first < tensor.count ? try download(elements[first..<min(first + size, tensor.count)]) : nil
        }
        guard var current = try piece(from: 0) else { return try body(UnsafeRawBufferPointer(start: nil, count: 0)) }
        var first = size
        while true {
            let next = try piece(from: first)
            try current.ready?.wait()
            try withExtendedLifetime(current.storage) {
                try body(
                    UnsafeRawBufferPointer(
                        start: current.rawPointer, count: current.dtype.byteCount(elements: current.count)))
            }
            guard let next else { return }
            current = next
            first += size
        }
    }
}
