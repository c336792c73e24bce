import ApusKernels
import ApusTensor
import ApusTestSupport
import Glibc
import Testing

@Suite struct `Activations` {
    let backend = CPUBackend(threadCount: 2)

    /// The definitions, of a gate and, for SwiGLU alone, what it gates.
    static func value(_ activation: Activation, _ x: Double, _ up: Double) -> Double {
        switch activation {
        case .swiglu: x / (1 + exp(-x)) * up
        case .gelu: 0.5 * x * (1 + erf(x / 2.0.squareRoot()))
        case .geluTanh: 0.5 * x * (1 + tanh((2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x)))
        case .relu: max(x, 0)
        }
    }

    /// Slopes with respect to the gate and to what it gates.
    static func slopes(_ activation: Activation, _ x: Double, _ up: Double) -> (Double, Double) {
        if activation == .relu { return (x > 0 ? 1 : 0, 0) }
        return (derivative(at: x) { value(activation, $0, up) }, activation == .swiglu ? value(activation, x, 1) : 0)
    }

    @Test(arguments: Activation.allCases, floatingTypes)
    func `equal their definition, forward and backward`(activation: Activation, dtype: DType) throws {
        let factor = activation.inputsPerOutput
        for (rows, width) in [(1, 1), (3, 17), (17, 100), (70, 257)] {
            let name = "\(activation) of (\(rows), \(width)) \(dtype)"
            let h = try backend.random(rows, factor * width, dtype: dtype, seed: 1, scale: 3)
            let a = try backend.sentinel(rows, width, dtype: dtype)
            try backend.activate(activation, h, into: a)
            let inputs = h.doubles
            func pair(_ index: Int) -> (gate: Double, up: Double) {
                let (row, column) = (index / width, index % width)
                let gate = inputs[row * factor * width + column]
                return (gate, factor == 2 ? inputs[(row * 2 + 1) * width + column] : 1)
            }
            let expected = (0..<rows * width).map { Self.value(activation, pair($0).gate, pair($0).up) }
            expectClose(a, expected, name)

            let da = try backend.random(rows, width, dtype: dtype, seed: 2)
            var slopes = Array(repeating: 0.0, count: h.count)
            for (index, gradient) in da.doubles.enumerated() {
                let (row, column) = (index / width, index % width)
                let (gate, up) = Self.slopes(activation, pair(index).gate, pair(index).up)
                slopes[row * factor * width + column] = gradient * gate
                if factor == 2 { slopes[(row * 2 + 1) * width + column] = gradient * up }
            }
            let dh = try backend.sentinel(rows, factor * width, dtype: dtype)
            let again = try backend.sentinel(rows, width, dtype: dtype)
            try backend.activateBackward(activation, da, h: h, into: dh, recomputed: again)
            expectClose(dh, slopes, "gradient of \(name)")
            expectSameBits(again, a, "\(name), recomputed")

            // In place: the gradient over the input, the recomputed value over its gradient.
            try backend.activateBackward(activation, da, h: h, into: h, recomputed: da)
            expectSameBits(h, dh, "gradient of \(name) in place")
            expectSameBits(da, a, "\(name), recomputed in place")
        }
    }

    @Test(arguments: Activation.allCases, floatingTypes)
    func `stay finite far from zero`(activation: Activation, dtype: DType) throws {
        let values: [Float] = [-1e4, -200, -90, -30, 0, 30, 90, 200, 1e4]
        let inputs = activation == .swiglu ? values + values.map { _ in 1 } : values
        let h = try backend.allocator.floating(inputs, Shape(1, inputs.count), dtype)
        let a = try backend.empty(Shape(1, values.count), dtype)
        try backend.activate(activation, h, into: a)
        expectClose(a, h.doubles.prefix(values.count).map { Self.value(activation, $0, 1) }, "\(activation)")
        let da = try backend.allocator.floating(values.map { _ in 1 }, Shape(1, values.count), dtype)
        let dh = try backend.empty(h.shape, dtype)
        try backend.activateBackward(activation, da, h: h, into: dh, recomputed: nil)
        #expect(try backend.countNonFinite(dh) == 0)
    }

    @Test(arguments: Activation.allCases)
    func `do not depend on the number of threads`(activation: Activation) throws {
        try expectSameBitsForAnyThreadCount("\(activation)") { backend in
            let h = try backend.random(301, 130 * activation.inputsPerOutput, dtype: .bf16, seed: 1, scale: 3)
            let (a, dh) = (try backend.empty(Shape(301, 130), .bf16), try backend.empty(h.shape, .bf16))
            try backend.activate(activation, h, into: a)
            try backend.activateBackward(activation, a, h: h, into: dh, recomputed: nil)
            return [a, dh]
        }
    }
}

@Suite struct `Clamping` {
    @Test(arguments: oddSizes, floatingTypes)
    func `holds values within the interval and lets gradients through inside it`(count: Int, dtype: DType) throws {
        let backend = CPUBackend(threadCount: 2)
        let x = try backend.random(count, dtype: dtype, seed: 1, scale: 3)
        let dy = try backend.random(count, dtype: dtype, seed: 2)
        let (y, dx) = (try backend.empty(x.shape, dtype), try backend.empty(x.shape, dtype))
        try backend.clamp(x, limit: 1.5, into: y)
        #expect(y.floats() == x.floats().map { max(-1.5, min(1.5, $0)) })
        try backend.clampBackward(dy, x: x, limit: 1.5, into: dx)
        #expect(dx.floats() == zip(dy.floats(), x.floats()).map { abs($1) <= 1.5 ? $0 : 0 })
        try backend.clampBackward(dy, x: x, limit: 1.5, into: dy)
        expectSameBits(dy, dx, "in place")
    }
}
