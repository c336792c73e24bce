public import ApusKernels
public import ApusTensor

// Shape letters: R rows, F width.

extension CUDABackend: ActivationOp {
    public func activate(_ activation: Activation, _ h: Tensor, into a: Tensor) throws {
        let (rows, width) = (a.shape[0], a.rowCount)
        precondition(h.shape[0] == rows && h.rowCount == activation.inputsPerOutput * width && h.dtype == a.dtype)
        guard let name = activation.kernel else {
            return try launch(
                "swiglu_\(a.suffix)", .rows(rows, width: width), a, a.rowStride, h, h.rowStride, rows, width)
        }
        precondition(h.isContiguous && a.isContiguous)
        try launch("\(name)_\(a.suffix)", .flat(a.count), a, h, a.count)
    }

    public func activateBackward(
        _ activation: Activation, _ da: Tensor, h: Tensor, into dh: Tensor, recomputed a: Tensor?
    ) throws {
        let (rows, width) = (da.shape[0], da.rowCount)
        precondition(h.shape == dh.shape && h.rowCount == activation.inputsPerOutput * width)
        guard let name = activation.kernel else {
            return try launch(
                "swiglu_backward_\(h.suffix)", .rows(rows, width: width), dh, dh.rowStride, a, a?.rowStride ?? 0, da,
                da.rowStride, h, h.rowStride, rows, width)
        }
        precondition(h.isContiguous && dh.isContiguous && da.isContiguous && a?.isContiguous != false)
        try launch("\(name)_backward_\(h.suffix)", .flat(h.count), dh, a, da, h, h.count)
    }
}

extension Activation {
    /// The kernel that works on elements; `nil` for SwiGLU, which works on rows.
    fileprivate var kernel: String? {
        switch self {
        case .swiglu: nil
        case .gelu: "gelu"
        case .geluTanh: "gelu_tanh"
        case .relu: "relu"
        }
    }
}
