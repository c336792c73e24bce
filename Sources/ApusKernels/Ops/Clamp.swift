public import ApusTensor
import CApusKernels

/// Holding values within a symmetric interval (OLMoE's `clip_qkv`). All tensors dense.
public protocol ClampOp {
    /// `y = x` held within `-limit ... limit`; `y` may be `x`.
    func clamp(_ x: Tensor, limit: Float, into y: Tensor) throws
    /// `dx = dy` where `x` was inside the interval, else 0; `dx` may be `dy`.
    func clampBackward(_ dy: Tensor, x: Tensor, limit: Float, into dx: Tensor) throws
}

extension CPUBackend: ClampOp {
    public func clamp(_ x: Tensor, limit: Float, into y: Tensor) throws {
        precondition(x.isContiguous && y.isContiguous && x.count == y.count)
        try x.waitUntilReady()
        overElements(x.count) { begin, count in
            if x.dtype == .f32 {
                apus_clamp_forward_f32(
                    y.pointer(to: Float.self) + begin, x.pointer(to: Float.self) + begin, count, limit)
            } else {
                apus_clamp_forward_bf16(
                    y.pointer(to: UInt16.self) + begin, x.pointer(to: UInt16.self) + begin, count, limit)
            }
        }
    }

    public func clampBackward(_ dy: Tensor, x: Tensor, limit: Float, into dx: Tensor) throws {
        precondition(x.isContiguous && dy.isContiguous && dx.isContiguous && x.count == dy.count)
        try dy.waitUntilReady()
        try x.waitUntilReady()
        overElements(x.count) { begin, count in
            if x.dtype == .f32 {
                apus_clamp_backward_f32(
                    dx.pointer(to: Float.self) + begin, dy.pointer(to: Float.self) + begin,
                    x.pointer(to: Float.self) + begin, count, limit)
            } else {
                apus_clamp_backward_bf16(
                    dx.pointer(to: UInt16.self) + begin, dy.pointer(to: UInt16.self) + begin,
                    x.pointer(to: UInt16.self) + begin, count, limit)
            }
        }
    }
}
