public import ApusTensor
import CApusKernels

/// The non-linearity between the two products of a feed-forward layer.
public enum Activation: String, Sendable, CaseIterable {
    /// `silu(gate) * up` (Shazeer 2020): the first product yields `[gate | up]`, twice as wide as the second reads.
    case swiglu
    /// `x * Phi(x)`, exact.
    case gelu
    /// GELU by its tanh approximation (Hendrycks and Gimpel 2016), as GPT-2 and MegaBlocks have it.
    case geluTanh = "gelu-tanh"
    /// `max(x, 0)`, as Switch Transformers has it.
    case relu

    /// Width of the first product's output for each activated element.
    public var inputsPerOutput: Int { self == .swiglu ? 2 : 1 }
}

/// Activations over rows: `h` (R, F or 2F) to `a` (R, F).
public protocol ActivationOp {
    /// `a = activation(h)`.
    func activate(_ activation: Activation, _ h: Tensor, into a: Tensor) throws
    /// `dh` from `da` and the stored `h`; with `recomputed`, also `a` again, so that it need not be kept. `dh` may be `h`
    /// and `recomputed` may be `da`.
    func activateBackward(
        _ activation: Activation, _ da: Tensor, h: Tensor, into dh: Tensor, recomputed a: Tensor?) throws
}

extension CPUBackend: ActivationOp {
    public func activate(_ activation: Activation, _ h: Tensor, into a: Tensor) throws {
        precondition(h.shape[0] == a.shape[0] && h.rowCount == activation.inputsPerOutput * a.rowCount)
        precondition(h.isContiguous && a.isContiguous && h.dtype == a.dtype)
        try h.waitUntilReady()
        let width = a.rowCount
        overRows(a.shape[0], width: h.rowCount) { range in
            let (from, to, count) = (h[range], a[range], range.count * width)
            switch (activation, h.dtype) {
            case (.swiglu, .f32):
                apus_swiglu_forward_f32(to.pointer(), width, from.pointer(), 2 * width, nil, range.count, width)
            case (.swiglu, _):
                apus_swiglu_forward_bf16(to.pointer(), width, from.pointer(), 2 * width, nil, range.count, width)
            case (.gelu, .f32): apus_gelu_forward_f32(to.pointer(), from.pointer(), count)
            case (.gelu, _): apus_gelu_forward_bf16(to.pointer(), from.pointer(), count)
            case (.geluTanh, .f32): apus_gelu_tanh_forward_f32(to.pointer(), from.pointer(), count)
            case (.geluTanh, _): apus_gelu_tanh_forward_bf16(to.pointer(), from.pointer(), count)
            case (.relu, .f32): apus_relu_forward_f32(to.pointer(), from.pointer(), count)
            case (.relu, _): apus_relu_forward_bf16(to.pointer(), from.pointer(), count)
            }
        }
    }

    public func activateBackward(
        _ activation: Activation, _ da: Tensor, h: Tensor, into dh: Tensor, recomputed a: Tensor?
    ) throws {
        precondition(h.shape == dh.shape && h.rowCount == activation.inputsPerOutput * da.rowCount)
        precondition(h.isContiguous && dh.isContiguous && da.isContiguous && a?.isContiguous != false)
        try da.waitUntilReady()
        try h.waitUntilReady()
        let width = da.rowCount
        overRows(da.shape[0], width: h.rowCount) { range in
            let (d, from, to, again) = (da[range], h[range], dh[range], a.map { $0[range] })
            if activation == .swiglu {
                if h.dtype == .f32 {
                    apus_swiglu_backward_f32(
                        to.pointer(), 2 * width, again?.pointer(), width, nil, d.pointer(), width, from.pointer(),
                        2 * width, nil, range.count, width)
                } else {
                    apus_swiglu_backward_bf16(
                        to.pointer(), 2 * width, again?.pointer(), width, nil, d.pointer(), width, from.pointer(),
                        2 * width, nil, range.count, width)
                }
                return
            }
            elementwiseBackward(activation, d, h: from, into: to, recomputed: again)
        }
    }

    /// The ungated activations. What is recomputed goes through a small buffer, because it may overwrite `da`, and `dh`
    /// may overwrite `h`, each of which the other still needs.
    private func elementwiseBackward(
        _ activation: Activation, _ da: Tensor, h: Tensor, into dh: Tensor, recomputed a: Tensor?
    ) {
        let chunk = 1024
        let width = h.dtype.byteCount
        withUnsafeTemporaryAllocation(byteCount: chunk * width, alignment: 64) { buffer in
            guard let saved = buffer.baseAddress else { return }
            for begin in stride(from: 0, to: da.count, by: chunk) {
                let count = min(chunk, da.count - begin)
                let input = h.rawPointer + begin * width
                saved.copyMemory(from: input, byteCount: count * width)
                gradient(
                    activation, h.dtype, da.rawPointer + begin * width, saved, dh.rawPointer + begin * width, count)
                if let a { value(activation, h.dtype, saved, a.rawPointer + begin * width, count) }
            }
        }
    }

    private func gradient(
        _ activation: Activation, _ dtype: DType, _ da: UnsafeMutableRawPointer, _ h: UnsafeMutableRawPointer,
        _ dh: UnsafeMutableRawPointer, _ count: Int
    ) {
        if dtype == .f32 {
            let (d, x, y) = (da.floats, h.floats, dh.floats)
            switch activation {
            case .gelu: apus_gelu_backward_f32(y, d, x, count)
            case .geluTanh: apus_gelu_tanh_backward_f32(y, d, x, count)
            case .relu: apus_relu_backward_f32(y, d, x, count)
            case .swiglu: preconditionFailure("SwiGLU works on rows")
            }
        } else {
            let (d, x, y) = (da.halves, h.halves, dh.halves)
            switch activation {
            case .gelu: apus_gelu_backward_bf16(y, d, x, count)
            case .geluTanh: apus_gelu_tanh_backward_bf16(y, d, x, count)
            case .relu: apus_relu_backward_bf16(y, d, x, count)
            case .swiglu: preconditionFailure("SwiGLU works on rows")
            }
        }
    }

    private func value(
        _ activation: Activation, _ dtype: DType, _ h: UnsafeMutableRawPointer, _ a: UnsafeMutableRawPointer,
        _ count: Int
    ) {
        switch (activation, dtype) {
        case (.gelu, .f32): apus_gelu_forward_f32(a.floats, h.floats, count)
        case (.gelu, _): apus_gelu_forward_bf16(a.halves, h.halves, count)
        case (.geluTanh, .f32): apus_gelu_tanh_forward_f32(a.floats, h.floats, count)
        case (.geluTanh, _): apus_gelu_tanh_forward_bf16(a.halves, h.halves, count)
        case (.relu, .f32): apus_relu_forward_f32(a.floats, h.floats, count)
        case (.relu, _): apus_relu_forward_bf16(a.halves, h.halves, count)
        case (.swiglu, _): preconditionFailure("SwiGLU works on rows")
        }
    }
}

extension UnsafeMutableRawPointer {
    /// The bytes as `f32` elements.
    var floats: UnsafeMutablePointer<Float> { assumingMemoryBound(to: Float.self) }
    /// The bytes as `bf16` elements.
    var halves: UnsafeMutablePointer<UInt16> { assumingMemoryBound(to: UInt16.self) }
}
