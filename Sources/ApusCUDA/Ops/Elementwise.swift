public import ApusKernels
public import ApusTensor

extension CUDABackend: ElementwiseOp {
    public func fill(_ tensor: Tensor, with value: Float) throws {
        precondition(tensor.isContiguous)
        equalLengths.forget(tensor)
        switch tensor.dtype {
        case .f32, .bf16: try launch("fill_\(tensor.suffix)", .flat(tensor.count), tensor, value, tensor.count)
        case .i32: try launch("fill_i32", .flat(tensor.count), tensor, Int(value), tensor.count)
        case .u8: try launch("fill_u8", .flat(tensor.count), tensor, Int(value), tensor.count)
        }
    }

    public func copy(_ source: Tensor, into target: Tensor) throws {
        precondition(source.shape == target.shape && source.dtype == target.dtype)
        let size = source.dtype.byteCount
        let isDense = source.isContiguous && target.isContiguous
        let rows = isDense || source.shape.rank == 0 ? 1 : source.shape[0]
        let bytes = source.dtype.byteCount(elements: isDense ? source.count : source.rowCount)
        guard rows > 0, bytes > 0 else { return }
        equalLengths.forget(target)
        if isDense {
            try wait(for: source)
            try wait(for: target)
            try queue.copy(from: source.address, to: target.address, byteCount: bytes)
        } else {
            try launch(
                "copy_rows", .rows(rows, width: bytes / 2), target, target.rowStride * size, source,
                source.rowStride * size, rows, bytes)
        }
    }

    public func add(_ left: Tensor, _ right: Tensor, into target: Tensor) throws {
        checkDense(left, right, target)
        try launch("add_\(target.suffix)", .flat(target.count), target, left, right, target.count)
    }

    public func addScaled(_ source: Tensor, factor: Float, into target: Tensor) throws {
        precondition(source.count == target.count && source.isContiguous && target.isContiguous)
        let types = source.dtype == target.dtype ? target.suffix : "\(source.suffix)_\(target.suffix)"
        try launch("add_scaled_\(types)", .flat(target.count), target, source, factor, target.count)
    }

    public func scale(_ source: Tensor, by factor: Float, into target: Tensor) throws {
        checkDense(source, target)
        try launch("scale_\(target.suffix)", .flat(target.count), target, source, factor, target.count)
    }

    public func multiply(_ left: Tensor, _ right: Tensor, into target: Tensor) throws {
        checkDense(left, right, target)
        try launch("multiply_\(target.suffix)", .flat(target.count), target, left, right, target.count)
    }

    public func convert(_ source: Tensor, into target: Tensor) throws {
        precondition(source.count == target.count && source.isContiguous && target.isContiguous)
        guard source.dtype != target.dtype else {
            return try copy(source.reshaped(source.count), into: target.reshaped(target.count))
        }
        try launch(
            "convert_\(source.suffix)_\(target.suffix)", .flat(target.count), target, source, target.count)
    }

    public func addBias(_ source: Tensor, bias: Tensor, into target: Tensor) throws {
        let (rows, width) = (source.shape[0], source.rowCount)
        precondition(source.shape == target.shape && bias.count == width && bias.dtype == source.dtype)
        try launch(
            "add_bias_\(target.suffix)", .rows(rows, width: width), target, target.rowStride, source,
            source.rowStride, bias, rows, width)
    }

    public func fillRandom(
        _ tensor: Tensor, _ distribution: RandomDistribution, stream: RandomStream, first: UInt64
    ) throws {
        precondition(tensor.isContiguous)
        let (shape, count) = (LaunchShape.flat(tensor.count), tensor.count)
        let (high, low) = (UInt64(stream.word0), UInt64(stream.word1))
        switch distribution {
        case .uniform(let from, let to):
            try launch("random_uniform_\(tensor.suffix)", shape, tensor, count, stream.seed, high, low, first, from, to)
        case .normal(let mean, let deviation):
            try launch(
                "random_normal_\(tensor.suffix)", shape, tensor, count, stream.seed, high, low, first, mean, deviation)
        case .gumbel:
            try launch("random_gumbel_\(tensor.suffix)", shape, tensor, count, stream.seed, high, low, first)
        }
    }

    /// Operands of one size and type without gaps.
    private func checkDense(_ tensors: Tensor...) {
        for tensor in tensors {
            precondition(
                tensor.isContiguous && tensor.count == tensors[0].count && tensor.dtype == tensors[0].dtype,
                "operands differ in size or type, or have gaps")
        }
    }
}
