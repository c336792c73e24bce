import ApusKernels
import ApusTensor
import ApusTestSupport
import Testing

// Shape letters: B sequences, S tokens of a sequence, H heads, dh head width.

/// Ops against PyTorch's results and gradients (`Tools/oracles/op_goldens.py`).
@Suite struct OpGoldensTests {
    let backend = CPUBackend(threadCount: 2)

    /// One golden file.
    private struct Op {
        let golden: Golden
        let backend: CPUBackend

        init(_ name: String, _ backend: CPUBackend) throws {
            golden = try Golden("ops", file: "\(name).safetensors")
            self.backend = backend
        }

        func tensor(_ name: String) throws -> Tensor {
            try backend.allocator.tensor(try golden.floats(name), Shape(try golden.shape(name)))
        }

        /// (B, H, S, dh) as PyTorch has it to (B S, H, dh).
        func tokensFirst(_ name: String) throws -> (values: [Float], shape: Shape) {
            let (values, extents) = (try golden.floats(name), try golden.shape(name))
            let (batch, heads, tokens, width) = (extents[0], extents[1], extents[2], extents[3])
            let turned = (0..<batch * tokens).flatMap { token in
                (0..<heads).flatMap { head -> ArraySlice<Float> in
                    let begin = ((token / tokens * heads + head) * tokens + token % tokens) * width
                    return values[begin..<begin + width]
                }
            }
            return (turned, Shape(batch * tokens, heads, width))
        }

        func heads(_ name: String) throws -> Tensor {
            let (values, shape) = try tokensFirst(name)
            return try backend.allocator.tensor(values, shape)
        }

        func expect(
            _ actual: Tensor, _ name: String, within tolerance: Double? = nil,
            _ location: SourceLocation = #_sourceLocation
        ) throws {
            expectClose(
                actual, try golden.floats(name).map(Double.init), within: tolerance, name, sourceLocation: location)
        }

        func expectHeads(
            _ actual: Tensor, _ name: String, within tolerance: Double? = nil,
            _ location: SourceLocation = #_sourceLocation
        ) throws {
            expectClose(
                actual, try tokensFirst(name).values.map(Double.init), within: tolerance, name, sourceLocation: location
            )
        }
    }

    private func like(_ tensor: Tensor) throws -> Tensor { try backend.empty(tensor.shape, .f32) }

    @Test func `norm by root mean square`() throws {
        let op = try Op("rms_norm", backend)
        let (x, weight) = (try op.tensor("x"), try op.tensor("weight"))
        let (y, dx, dweight) = (try like(x), try like(x), try backend.zeros(weight.shape, .f32))
        let rstd = try backend.empty(Shape(7), .f32)
        try backend.rmsNorm(x, weight: weight, epsilon: 1e-6, into: y, rstd: rstd)
        try backend.rmsNormBackward(
            try op.tensor("dy"), x: x, weight: weight, rstd: rstd, into: dx, adds: false, weightGradient: dweight)
        try op.expect(y, "y")
        try op.expect(dx, "grad.x")
        try op.expect(dweight, "grad.weight")
    }

    @Test func `norm of layers`() throws {
        let op = try Op("layer_norm", backend)
        let (x, weight, bias) = (try op.tensor("x"), try op.tensor("weight"), try op.tensor("bias"))
        let (y, dx) = (try like(x), try like(x))
        let (dweight, dbias) = (try backend.zeros(weight.shape, .f32), try backend.zeros(bias.shape, .f32))
        let (mean, rstd) = (try backend.empty(Shape(7), .f32), try backend.empty(Shape(7), .f32))
        try backend.layerNorm(x, weight: weight, bias: bias, epsilon: 1e-5, into: y, mean: mean, rstd: rstd)
        try backend.layerNormBackward(
            try op.tensor("dy"), x: x, weight: weight, mean: mean, rstd: rstd, into: dx, adds: false,
            weightGradient: dweight, biasGradient: dbias)
        try op.expect(y, "y")
        try op.expect(dx, "grad.x")
        try op.expect(dweight, "grad.weight")
        try op.expect(dbias, "grad.bias")
    }

    @Test(arguments: [("gelu_erf", Activation.gelu), ("gelu_tanh", .geluTanh)])
    func `activations of one input`(name: String, activation: Activation) throws {
        let op = try Op(name, backend)
        let x = try op.tensor("x")
        let (y, dx) = (try like(x), try like(x))
        try backend.activate(activation, x, into: y)
        try backend.activateBackward(activation, try op.tensor("dy"), h: x, into: dx, recomputed: nil)
        try op.expect(y, "y")
        try op.expect(dx, "grad.x")
    }

    @Test func `SwiGLU`() throws {
        let op = try Op("swiglu", backend)
        let (gate, up, dy) = (try op.tensor("gate"), try op.tensor("up"), try op.tensor("dy"))
        let h = try backend.empty(Shape(7, 66), .f32)
        try backend.copy(gate, into: h.columns(0..<33))
        try backend.copy(up, into: h.columns(33..<66))
        let (y, dh) = (try like(gate), try like(h))
        try backend.activate(.swiglu, h, into: y)
        try backend.activateBackward(.swiglu, dy, h: h, into: dh, recomputed: nil)
        try op.expect(y, "y")
        try op.expect(dh.columns(0..<33), "grad.gate")
        try op.expect(dh.columns(33..<66), "grad.up")
    }

    @Test func `softmax`() throws {
        let op = try Op("softmax", backend)
        let x = try op.tensor("x")
        let (y, dx) = (try like(x), try like(x))
        try backend.softmax(x, into: y)
        try backend.softmaxBackward(try op.tensor("dy"), y: y, into: dx)
        try op.expect(y, "y")
        try op.expect(dx, "grad.x")
    }

    @Test func `rotary positions`() throws {
        let op = try Op("rope", backend)
        let positions = try backend.allocator.tensor(try op.golden.integers("positions"), Shape(14))
        let table = try backend.rotaryTable(positions: 1001, headWidth: 10, theta: 10_000)
        let (q, k) = (try op.heads("q"), try op.heads("k"))
        let y = try backend.empty(Shape(14, 4, 10), .f32)
        let rows = y.reshaped(14, 40)
        try backend.rotate(
            q, positions: positions, table: table, inverse: false, into: rows.columns(0..<30).reshaped(14, 3, 10))
        try backend.rotate(
            k, positions: positions, table: table, inverse: false, into: rows.columns(30..<40).reshaped(14, 1, 10))
        // PyTorch forms its angles in f32: at position 1000 they are exact to 3e-5.
        try op.expectHeads(y, "y", within: 5e-5)
        let dy = try op.heads("dy")
        try backend.rotate(dy, positions: positions, table: table, inverse: true, into: dy)
        let (dq, dk) = (try like(q), try like(k))
        try backend.copy(dy.reshaped(14, 40).columns(0..<30).reshaped(14, 3, 10), into: dq)
        try backend.copy(dy.reshaped(14, 40).columns(30..<40).reshaped(14, 1, 10), into: dk)
        try op.expectHeads(dq, "grad.q", within: 5e-5)
        try op.expectHeads(dk, "grad.k", within: 5e-5)
    }

    @Test(arguments: [("attention_causal", true), ("attention_suffix", true), ("attention_cross", false)])
    func `attention`(name: String, isCausal: Bool) throws {
        let op = try Op(name, backend)
        let (q, k, v) = (try op.heads("q"), try op.heads("k"), try op.heads("v"))
        func starts(_ tensor: Tensor) throws -> Tensor {
            try backend.allocator.integers([0, tensor.shape[0] / 2, tensor.shape[0]])
        }
        let view = KVView(keys: k, values: v, layout: .contiguous(cumulativeLengths: try starts(k)))
        let (mask, scale) = (AttentionMask(isCausal: isCausal), 1 / Float(10).squareRoot())
        let (y, sums) = (try like(q), try backend.empty(Shape(q.shape[0], 6), .f32))
        let lengths = try starts(q)
        try backend.attention(
            q, cumulativeLengths: lengths, kv: view, mask: mask, scale: scale, into: y, logSumExp: sums)
        let (dq, dk, dv) = (try like(q), try like(k), try like(v))
        try backend.attentionBackward(
            try op.heads("dy"), q: q, cumulativeLengths: lengths, kv: view, mask: mask, scale: scale, out: y,
            logSumExp: sums, dq: dq, dk: dk, dv: dv)
        try op.expectHeads(y, "y")
        try op.expectHeads(dq, "grad.q")
        try op.expectHeads(dk, "grad.k")
        try op.expectHeads(dv, "grad.v")
    }

    @Test func `cross-entropy`() throws {
        let op = try Op("cross_entropy", backend)
        let logits = try op.tensor("logits")
        let targets = try backend.allocator.tensor(try op.golden.integers("targets"), Shape(11))
        let (loss, sums) = (try backend.empty(Shape(11), .f32), try backend.empty(Shape(11), .f32))
        try backend.crossEntropy(logits, targets: targets, loss: loss, logSumExp: sums)
        let factor = 1 / Float(targets.array(of: Int32.self).count { $0 >= 0 })
        let mean = try backend.empty(Shape(1), .f32)
        try backend.sum(loss, factor: factor, into: mean)
        expectClose(mean, try op.golden.floats("y").map(Double.init), "y")
        let scale = try backend.allocator.tensor([factor], Shape(1))
        try backend.crossEntropyBackward(logits, targets: targets, logSumExp: sums, scale: scale, into: logits)
        try op.expect(logits, "grad.logits")
    }

    @Test(arguments: [("matrix", 0.1), ("norm", 0)] as [(String, Float)])
    func `AdamW over five steps`(name: String, decay: Float) throws {
        let op = try Op("adamw", backend)
        let weights = try op.tensor("\(name).0")
        let shape = weights.shape
        let buffers = AdamWBuffers(
            weights: weights, master: nil, first: try backend.zeros(shape, .f32),
            second: try backend.zeros(shape, .f32),
            gradient: try like(weights))
        let one = try backend.allocator.tensor([Float(1)], Shape(1))
        for step in 1...5 {
            try backend.copy(try op.tensor("\(name).grad.\(step)"), into: buffers.gradient)
            try backend.adamW(
                buffers,
                AdamWStep(learningRate: 3e-3, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: decay, step: step),
                gradientScale: one, rounding: RandomStream(seed: 1, purpose: .stochasticRounding, step: step),
                firstElement: 0)
            try op.expect(weights, "\(name).\(step)")
            try op.expect(buffers.first, "\(name).first.\(step)")
            try op.expect(buffers.second, "\(name).second.\(step)")
        }
    }

    @Test(arguments: [("clipped", 1), ("free", 1000)] as [(String, Float)])
    func `clipping by the norm of all gradients`(label: String, limit: Float) throws {
        let op = try Op("clip", backend)
        let gradients = [try op.tensor("grad.0"), try op.tensor("grad.1")]
        let (sum, scale) = (try backend.zeros(Shape(1), .f32), try backend.empty(Shape(1), .f32))
        try backend.gradientSquares(gradients, into: sum)
        expectClose(
            [sum.floats()[0].squareRoot()], try op.golden.floats("\(label).norm").map(Double.init), within: 1e-6, "norm"
        )
        try backend.clipFactor(sumOfSquares: sum, loss: nil, previous: nil, limit: limit, into: scale)
        for (index, gradient) in gradients.enumerated() {
            try backend.scale(gradient, by: scale.floats()[0], into: gradient)
            try op.expect(gradient, "\(label).\(index)")
        }
    }
}
