import ApusKernels
import ApusTensor

// Layers.

extension FaultyBackend {
    func rmsNorm(_ x: Tensor, weight: Tensor, epsilon: Float, into y: Tensor, rstd: Tensor?) throws {
        try inner.rmsNorm(x, weight: weight, epsilon: epsilon, into: y, rstd: rstd)
        done(.rmsNorm, y, rstd)
    }

    func addRMSNorm(
        _ x: Tensor, residual: Tensor, weight: Tensor, epsilon: Float, sum: Tensor, into y: Tensor, rstd: Tensor?
    ) throws {
        try inner.addRMSNorm(x, residual: residual, weight: weight, epsilon: epsilon, sum: sum, into: y, rstd: rstd)
        done(.addRMSNorm, sum, y, rstd)
    }

    func rmsNormBackward(
        _ dy: Tensor, x: Tensor, weight: Tensor, rstd: Tensor, into dx: Tensor, adds: Bool, weightGradient: Tensor?
    ) throws {
        try inner.rmsNormBackward(
            dy, x: x, weight: weight, rstd: rstd, into: dx, adds: adds, weightGradient: weightGradient)
        done(.rmsNormBackward, dx, weightGradient)
    }

    func layerNorm(
        _ x: Tensor, weight: Tensor, bias: Tensor?, epsilon: Float, into y: Tensor, mean: Tensor?, rstd: Tensor?
    ) throws {
        try inner.layerNorm(x, weight: weight, bias: bias, epsilon: epsilon, into: y, mean: mean, rstd: rstd)
        done(.layerNorm, y, mean, rstd)
    }

    func layerNormBackward(
        _ dy: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor, into dx: Tensor, adds: Bool,
        weightGradient: Tensor?, biasGradient: Tensor?
    ) throws {
        try inner.layerNormBackward(
            dy, x: x, weight: weight, mean: mean, rstd: rstd, into: dx, adds: adds, weightGradient: weightGradient,
            biasGradient: biasGradient)
        done(.layerNormBackward, dx, weightGradient, biasGradient)
    }

    func activate(_ activation: Activation, _ h: Tensor, into a: Tensor) throws {
        try inner.activate(activation, h, into: a)
        done(.activate, a)
    }

    func activateBackward(
        _ activation: Activation, _ da: Tensor, h: Tensor, into dh: Tensor, recomputed a: Tensor?
    ) throws {
        try inner.activateBackward(activation, da, h: h, into: dh, recomputed: a)
        done(.activateBackward, dh, a)
    }

    func rotaryTable(positions: Int, headWidth: Int, theta: Double) throws -> RotaryTable {
        let result = try inner.rotaryTable(positions: positions, headWidth: headWidth, theta: theta)
        done(.rotaryTable, result.cosines, result.sines)
        return result
    }

    func rotate(_ x: Tensor, positions: Tensor, table: RotaryTable, inverse: Bool, into y: Tensor) throws {
        try inner.rotate(x, positions: positions, table: table, inverse: inverse, into: y)
        done(.rotate, y)
    }

    func attention(
        _ q: Tensor, cumulativeLengths: Tensor, kv: KVView, mask: AttentionMask, scale: Float, into out: Tensor,
        logSumExp: Tensor?
    ) throws {
        try inner.attention(
            q, cumulativeLengths: cumulativeLengths, kv: kv, mask: mask, scale: scale, into: out, logSumExp: logSumExp)
        done(.attention, out, logSumExp)
    }

    func attentionBackward(
        _ dout: Tensor, q: Tensor, cumulativeLengths: Tensor, kv: KVView, mask: AttentionMask, scale: Float,
        out: Tensor, logSumExp: Tensor, dq: Tensor, dk: Tensor, dv: Tensor
    ) throws {
        try inner.attentionBackward(
            dout, q: q, cumulativeLengths: cumulativeLengths, kv: kv, mask: mask, scale: scale, out: out,
            logSumExp: logSumExp, dq: dq, dk: dk, dv: dv)
        done(.attentionBackward, dq, dk, dv)
    }

    func shortConvolution(_ x: Tensor, taps: Tensor, positions: Tensor, into y: Tensor) throws {
        try inner.shortConvolution(x, taps: taps, positions: positions, into: y)
        done(.shortConvolution, y)
    }

    func shortConvolutionBackward(
        _ dy: Tensor, x: Tensor, taps: Tensor, positions: Tensor, into dx: Tensor, tapGradient: Tensor?
    ) throws {
        try inner.shortConvolutionBackward(
            dy, x: x, taps: taps, positions: positions, into: dx, tapGradient: tapGradient)
        done(.shortConvolutionBackward, dx, tapGradient)
    }

    func dropRows(_ x: Tensor, _ dropout: RowDropout, into y: Tensor) throws {
        try inner.dropRows(x, dropout, into: y)
        done(.dropRows, y)
    }

    func clamp(_ x: Tensor, limit: Float, into y: Tensor) throws {
        try inner.clamp(x, limit: limit, into: y)
        done(.clamp, y)
    }

    func clampBackward(_ dy: Tensor, x: Tensor, limit: Float, into dx: Tensor) throws {
        try inner.clampBackward(dy, x: x, limit: limit, into: dx)
        done(.clampBackward, dx)
    }

    func crossEntropy(_ logits: Tensor, targets: Tensor, loss: Tensor, logSumExp: Tensor) throws {
        try inner.crossEntropy(logits, targets: targets, loss: loss, logSumExp: logSumExp)
        done(.crossEntropy, loss, logSumExp)
    }

    func crossEntropyBackward(
        _ logits: Tensor, targets: Tensor, logSumExp: Tensor, scale: Tensor, into gradient: Tensor
    ) throws {
        try inner.crossEntropyBackward(logits, targets: targets, logSumExp: logSumExp, scale: scale, into: gradient)
        done(.crossEntropyBackward, gradient)
    }

    func divergence(
        teacher: Tensor, student: Tensor, targets: Tensor, temperature: Float, difference: Tensor, teacherLog: Tensor,
        studentLog: Tensor
    ) throws {
        try inner.divergence(
            teacher: teacher, student: student, targets: targets, temperature: temperature, difference: difference,
            teacherLog: teacherLog, studentLog: studentLog)
        done(.divergence, difference, teacherLog, studentLog)
    }

    func distillationBackward(
        teacher: Tensor, student: Tensor, targets: Tensor, _ term: DistillationTerm, logSumExp: Tensor,
        teacherLog: Tensor, studentLog: Tensor, scale: Tensor, into gradient: Tensor
    ) throws {
        try inner.distillationBackward(
            teacher: teacher, student: student, targets: targets, term, logSumExp: logSumExp, teacherLog: teacherLog,
            studentLog: studentLog, scale: scale, into: gradient)
        done(.distillationBackward, gradient)
    }
}
