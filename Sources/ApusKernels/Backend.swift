public import ApusTensor

/// Everything that a model asks of a device: one protocol, made of one protocol for each op.
///
/// Ops write into tensors that the caller made, on the backend's stream; they read tensors whose ``Tensor/ready`` event
/// is pending only after it. Shapes are the caller's responsibility: a wrong one is an error of the program and traps.
/// What a user can cause (no memory, a failing device) is thrown.
///
/// The CPU implementation is the reference for every other one. Each file under `Ops/` holds one op's contract, forward
/// and backward, and its CPU implementation.
public protocol Backend: AnyObject, Sendable, MatMulOp, GroupedMatMulOp, GatedExpertsOp, BlockSparseOp, NormOp,
    ActivationOp, RotaryOp, ShortConvolutionOp,
    AttentionOp, RouterOp, GateOp, RouterLossOp, CapacityOp, RoutedRowsOp, MixOp, EmbeddingOp, ClampOp, CrossEntropyOp,
    DistillationOp, DropoutOp,
    ElementwiseOp, OptimizerOp, TransferOp, RouterPassOp, DecodeOp, RecordingOp, ClockOp
{
    /// The memory of this device.
    var allocator: CachingAllocator { get }
    /// The stream that ops are enqueued on.
    var stream: Stream { get }
    /// Whether every row of a product or of attention has the same bits whatever else is in the batch: one kernel and
    /// one order of summation for every size.
    var isBatchInvariant: Bool { get }
    /// Lets ops given from now on come after what `event` is the end of: on a device they wait there; where ops run as they
    /// are given, the caller waits.
    ///
    /// - Throws: what the work has ended with, if that is known.
    func wait(for event: Event) throws
}

extension Backend {
    /// `tensor` without its ``Tensor/ready`` event: ops given from now on come after it.
    ///
    /// - Throws: as ``wait(for:)``.
    public func arrived(_ tensor: consuming Tensor) throws -> Tensor {
        guard let ready = tensor.ready else { return tensor }
        try wait(for: ready)
        tensor.ready = nil
        return tensor
    }

    /// A dense tensor with undefined contents.
    ///
    /// - Throws: ``TensorError/outOfMemory(requested:purpose:statistics:limit:)``
    public func empty(_ shape: Shape, _ dtype: DType, _ purpose: MemoryPurpose = .activations) throws -> Tensor {
        try allocator.empty(shape, dtype, purpose)
    }

    /// A dense tensor of zeros.
    ///
    /// - Throws: ``TensorError/outOfMemory(requested:purpose:statistics:limit:)``
    public func zeros(_ shape: Shape, _ dtype: DType, _ purpose: MemoryPurpose = .activations) throws -> Tensor {
        let tensor = try allocator.empty(shape, dtype, purpose)
        try fill(tensor, with: 0)
        return tensor
    }
}
