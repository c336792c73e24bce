public import ApusKernels
public import ApusTensor

extension CUDABackend: ClampOp {
    public func clamp(_ x: Tensor, limit: Float, into y: Tensor) throws {
        precondition(x.isContiguous && y.isContiguous && x.count == y.count)
        try launch("clamp_\(x.suffix)", .flat(x.count), y, x, limit, x.count)
    }

    public func clampBackward(_ dy: Tensor, x: Tensor, limit: Float, into dx: Tensor) throws {
        precondition(x.isContiguous && dy.isContiguous && dx.isContiguous && x.count == dy.count)
        try launch("clamp_backward_\(x.suffix)", .flat(x.count), dx, dy, x, limit, x.count)
    }
}
