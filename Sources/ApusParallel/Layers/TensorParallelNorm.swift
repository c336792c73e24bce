public import ApusCollectives
public import ApusKernels
public import ApusNN
public import ApusTensor

// Shape letters: T tokens, W columns of a row on each of N ranks.

/// RMSNorm of rows whose columns are divided over the ranks in equal parts: the norm of queries and keys over the whole
/// projection (OLMoE).
///
/// A rank's own norm knows `r = (m + epsilon)^-1/2` of the mean square `m` of its columns. Since the parts are equal,
/// the whole row's is `(mean over ranks of r^-2)^-1/2`: itself an RMS statistic, of the row of the ranks' `1 / r`. So
/// one all-reduce of N numbers for each row and part makes it, with no op but the norm's own.
public struct TensorParallelNorm: DividedRowNorm {
    /// The ranks.
    public let group: any Collective
    /// The layer, for messages.
    public let layer: Int?

    /// A norm over the columns of `group`'s ranks.
    public init(group: any Collective, layer: Int?) {
        self.group = group
        self.layer = layer
    }

    public func forward(_ parts: [Part], epsilon: Float, on tape: Tape) throws -> [Tensor] {
        let backend = tape.backend
        let tokens = parts[0].x.shape[0]
        let order = try backend.rowNumbers(tokens)
        var own: [(normalized: Tensor, inverse: Tensor)] = []
        for part in parts {
            let normalized = try backend.empty(part.x.shape, part.x.dtype, .workspace)
            own.append((normalized, try normalize(part.x, part.weight, epsilon, into: normalized, backend).inverse))
        }
        let all = try tape.keeping(.reductions) {
            let table = try backend.zeros(Shape(tokens, parts.count * group.size), .f32)
            for (index, part) in own.enumerated() {
                let column = index * group.size + group.rank
                try backend.copy(part.inverse.reshaped(tokens, 1), into: table.columns(column..<column + 1))
            }
            return try group.startAllReduce(table, into: table, after: backend.stream, layer: layer)
        }
        return try parts.indices.map { index in
            let columns = all.columns(index * group.size..<(index + 1) * group.size)
            let rstd = try backend.inverseRootMeanSquare(columns)
            let factor = try backend.empty(Shape(tokens), .f32, .workspace)
            try backend.multiply(rstd, own[index].inverse, into: factor)
            try backend.gatherRows(own[index].normalized, index: order, scale: factor, into: parts[index].y)
            return rstd
        }
    }

    /// With `c` the row's sum of `dy * weight * x` over the columns here, and `C` over all, the local backward at the
    /// whole row's `rstd` lacks `rstd^3 (c / W - C / (N W)) x`; the weight's gradient is right as it is.
    public func backward(_ parts: [PartGradient], epsilon: Float, _ backend: any Backend) throws {
        let tokens = parts[0].x.shape[0]
        let order = try backend.rowNumbers(tokens)
        let own = try backend.empty(Shape(parts.count, tokens), .f32)
        for (index, part) in parts.enumerated() {
            let normalized = try backend.empty(part.x.shape, part.x.dtype, .workspace)
            let inverse = try normalize(part.x, part.weight, epsilon, into: normalized, backend).inverse
            let sums = own[index..<index + 1].reshaped(tokens)
            try backend.combineRowsBackward(
                part.dy, rows: normalized, slotToRow: order, weights: nil, choices: 1, drows: nil,
                dweights: sums)
            try backend.multiply(sums, inverse, into: sums)
            try backend.scale(sums, by: 1 / Float(part.x.shape[1]), into: sums)
        }
        let all = try group.startAllReduce(
            own, into: backend.empty(own.shape, .f32), after: backend.stream, layer: layer)
        for (index, part) in parts.enumerated() {
            let factor = own[index..<index + 1].reshaped(tokens)
            try backend.addScaled(all[index..<index + 1].reshaped(tokens), factor: -1 / Float(group.size), into: factor)
            for _ in 0..<3 { try backend.multiply(factor, part.rstd, into: factor) }
            try backend.rmsNormBackward(
                part.dy, x: part.x, weight: part.weight, rstd: part.rstd, into: part.dy, adds: false,
                weightGradient: part.weightGradient)
            try backend.combineRows(
                part.x, slotToRow: order, weights: factor, choices: 1, into: part.dy, adds: true)
        }
    }

    /// The norm of the columns that are here, with `1 / r`.
    private func normalize(
        _ x: Tensor, _ weight: Tensor, _ epsilon: Float, into y: Tensor, _ backend: any Backend
    ) throws -> (rstd: Tensor, inverse: Tensor) {
        let rstd = try backend.empty(Shape(x.shape[0]), .f32, .workspace)
        try backend.rmsNorm(x, weight: weight, epsilon: epsilon, into: y, rstd: rstd)
        return (rstd, try backend.inverseRootMeanSquare(rstd.reshaped(x.shape[0], 1)))
    }
}

extension Backend {
    /// `0 ..< count` as an `i32` index.
    fileprivate func rowNumbers(_ count: Int) throws -> Tensor {
        try tensor((0..<Int32(count)).map(\.self), Shape(count))
    }

    /// For each row of a `f32` matrix, one over the root of its mean square.
    fileprivate func inverseRootMeanSquare(_ rows: Tensor) throws -> Tensor {
        let ones = try empty(Shape(rows.shape[1]), .f32, .workspace)
        try fill(ones, with: 1)
        let result = try empty(Shape(rows.shape[0]), .f32)
        let unused = try empty(rows.shape, .f32, .workspace)
        try rmsNorm(rows, weight: ones, epsilon: 0, into: unused, rstd: result)
        return result
    }
}
