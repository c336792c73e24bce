import ApusKernels
import ApusTensor
import ApusTestSupport
import Testing

/// One AdamW step of one element in double precision.
private func referenceStep(
    _ state: (weight: Double, first: Double, second: Double), gradient: Double, _ step: AdamWStep
) -> (weight: Double, first: Double, second: Double) {
    let (beta1, beta2) = (Double(step.beta1), Double(step.beta2))
    let first = beta1 * state.first + (1 - beta1) * gradient
    let second = beta2 * state.second + (1 - beta2) * gradient * gradient
    var (power1, power2) = (1.0, 1.0)
    for _ in 0..<step.step { (power1, power2) = (power1 * beta1, power2 * beta2) }
    let rate = Double(step.learningRate)
    let update = first / (1 - power1) / ((second / (1 - power2)).squareRoot() + Double(step.epsilon))
    return (state.weight * (1 - rate * Double(step.weightDecay)) - rate * update, first, second)
}

@Suite struct `AdamW` {
    static let counts = oddSizes + [40_001]
    let backend = CPUBackend(threadCount: 2)
    let rounding = RandomStream(seed: 3, purpose: .stochasticRounding, step: 1)

    private func step(_ number: Int, rate: Float = 0.01) -> AdamWStep {
        AdamWStep(learningRate: rate, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, step: number)
    }

    private func scale(_ value: Float) throws -> Tensor { try backend.allocator.tensor([value], Shape(1)) }

    /// Three steps with new gradients, on the device and in double precision.
    private func run(_ buffers: AdamWBuffers, count: Int, master: Bool) throws -> (
        weights: [Double], first: [Double], second: [Double]
    ) {
        let initial = (master ? buffers.master ?? buffers.weights : buffers.weights).doubles
        var states = initial.map { (weight: $0, first: 0.0, second: 0.0) }
        for number in 1...3 {
            let gradient = randomValues(count, seed: UInt64(number))
            buffers.gradient.assign(gradient)
            try backend.adamW(buffers, step(number), gradientScale: try scale(0.5), rounding: rounding, firstElement: 0)
            states = states.indices.map {
                referenceStep(states[$0], gradient: 0.5 * Double(gradient[$0]), step(number))
            }
            #expect(buffers.gradient.floats() == gradient)
        }
        return (states.map(\.weight), states.map(\.first), states.map(\.second))
    }

    @Test(arguments: counts)
    func `in f32 equals its definition`(count: Int) throws {
        let buffers = AdamWBuffers(
            weights: try backend.random(count, seed: 7), master: nil, first: try backend.zeros(Shape(count), .f32),
            second: try backend.zeros(Shape(count), .f32), gradient: try backend.empty(Shape(count), .f32))
        let expected = try run(buffers, count: count, master: false)
        expectClose(buffers.weights, expected.weights, "weights")
        expectClose(buffers.first, expected.first, "first moment")
        expectClose(buffers.second, expected.second, "second moment")
    }

    @Test(arguments: counts)
    func `with a master updates it in f32 and rounds it to nearest`(count: Int) throws {
        let master = try backend.random(count, seed: 7)
        let buffers = AdamWBuffers(
            weights: try backend.sentinel(count, dtype: .bf16), master: master,
            first: try backend.zeros(Shape(count), .f32),
            second: try backend.zeros(Shape(count), .f32), gradient: try backend.empty(Shape(count), .f32))
        let expected = try run(buffers, count: count, master: true)
        expectClose(master, expected.weights, "master")
        #expect(buffers.weights.array(of: UInt16.self) == master.floats().map(bfloat16Bits))
        expectClose(buffers.first, expected.first, "first moment")
        expectClose(buffers.second, expected.second, "second moment")
    }

    /// A run of bf16 buffers with moments of zero.
    private func pureBuffers(_ count: Int, weight: Float? = nil, gradient: Float? = nil) throws -> AdamWBuffers {
        func values(_ value: Float?, _ seed: UInt64) -> [Float] {
            value.map { Array(repeating: $0, count: count) } ?? randomValues(count, seed: seed)
        }
        return AdamWBuffers(
            weights: try backend.allocator.floating(values(weight, 7), Shape(count), .bf16), master: nil,
            first: try backend.zeros(Shape(count), .bf16), second: try backend.zeros(Shape(count), .bf16),
            gradient: try backend.allocator.floating(values(gradient, 8), Shape(count), .bf16))
    }

    @Test(arguments: counts)
    func `in bf16 rounds to a neighbour of the exact value`(count: Int) throws {
        let buffers = try pureBuffers(count)
        let (weights, gradients) = (buffers.weights.doubles, buffers.gradient.doubles)
        try backend.adamW(buffers, step(1), gradientScale: try scale(2), rounding: rounding, firstElement: 5)
        let exact = zip(weights, gradients).map { referenceStep(($0, 0, 0), gradient: 2 * $1, step(1)) }
        for (name, tensor, expected) in [
            ("weight", buffers.weights, exact.map(\.weight)), ("first moment", buffers.first, exact.map(\.first)),
            ("second moment", buffers.second, exact.map(\.second)),
        ] {
            for (value, wanted) in zip(tensor.doubles, expected) {
                // The distance between neighbours is at most 2^-7 of the value; f32 arithmetic adds its own rounding.
                let bound = abs(wanted) * (1 / 128.0 + 1e-5) + 1e-30
                #expect(abs(value - wanted) <= bound, "\(name)")
            }
        }
        #expect(buffers.gradient.doubles == gradients)
    }

    @Test func `in bf16 rounds up as often as the discarded part says`() throws {
        let count = 100_000
        let buffers = try pureBuffers(count, weight: 1, gradient: 1)
        // One step takes the learning rate off, a quarter of the distance between the neighbours 1 and 1 - 2^-8.
        let constants = AdamWStep(
            learningRate: 1 / 1024, beta1: 0.9, beta2: 0.95, epsilon: 0, weightDecay: 0, step: 1)
        try backend.adamW(buffers, constants, gradientScale: try scale(1), rounding: rounding, firstElement: 0)
        let moved = buffers.weights.floats().count { $0 < 1 }
        #expect(abs(moved - count / 4) < 5 * 137, "\(moved) of \(count) moved")
        #expect(Set(buffers.weights.floats()) == [1, 0.99609375])
    }

    @Test func `in bf16 draws by the element's place, not by the cut`() throws {
        let whole = try pureBuffers(1000)
        let parts = try pureBuffers(1000)
        try backend.adamW(whole, step(1), gradientScale: try scale(1), rounding: rounding, firstElement: 40)
        for range in [0..<333, 333..<1000] {
            let piece = AdamWBuffers(
                weights: parts.weights[range], master: nil, first: parts.first[range], second: parts.second[range],
                gradient: parts.gradient[range])
            try backend.adamW(
                piece, step(1), gradientScale: try scale(1), rounding: rounding,
                firstElement: 40 + UInt64(range.lowerBound))
        }
        expectSameBits(parts.weights, whole.weights, "weights")
        expectSameBits(parts.first, whole.first, "first moment")
        expectSameBits(parts.second, whole.second, "second moment")
    }

    @Test func `does not depend on the number of threads`() throws {
        let (constants, rounding) = (step(2), rounding)
        try expectSameBitsForAnyThreadCount("AdamW") { backend in
            let buffers = AdamWBuffers(
                weights: try backend.random(50_001, dtype: .bf16, seed: 1), master: nil,
                first: try backend.random(50_001, dtype: .bf16, seed: 2),
                second: try backend.allocator.floating(
                    randomValues(50_001, seed: 3).map { abs($0) }, Shape(50_001), .bf16),
                gradient: try backend.random(50_001, dtype: .bf16, seed: 4))
            try backend.adamW(
                buffers, constants, gradientScale: try backend.allocator.tensor([Float(1)], Shape(1)),
                rounding: rounding,
                firstElement: 0)
            return [buffers.weights, buffers.first, buffers.second]
        }
    }

    @Test(arguments: [(4, 1, 0.5), (0.25, 1, 1), (9, 0, 1), (0, 1, 1), (100, 2, 0.2)] as [(Float, Float, Float)])
    func `clips by the norm`(sumOfSquares: Float, limit: Float, expected: Float) throws {
        let result = try scale(-1)
        try backend.clipFactor(
            sumOfSquares: try scale(sumOfSquares), loss: try scale(3), previous: nil, limit: limit, into: result)
        #expect(abs(result.floats()[0] - expected) < 2e-6)
    }

    @Test(arguments: [Float.nan, .infinity, -.infinity])
    func `a number that is none holds the step back, and the next`(_ bad: Float) throws {
        let sound = try scale(1)
        for (squares, loss, previous) in [(bad, 1, 1), (1, bad, 1), (1, 1, bad)] as [(Float, Float, Float)] {
            let (held, next) = (try scale(1), try scale(1))
            try backend.clipFactor(
                sumOfSquares: try scale(squares), loss: try scale(loss), previous: try scale(previous), limit: 1,
                into: held)
            try backend.clipFactor(sumOfSquares: sound, loss: sound, previous: held, limit: 0, into: next)
            #expect(held.floats()[0].isNaN && next.floats()[0].isNaN)
        }
    }

    /// In each precision mode.
    @Test(arguments: [DType.f32, .bf16], [true, false])
    func `a step that is held back changes nothing`(_ dtype: DType, _ hasMaster: Bool) throws {
        let narrow = dtype == .bf16 && !hasMaster ? DType.bf16 : .f32
        let buffers = AdamWBuffers(
            weights: try backend.random(1000, dtype: dtype, seed: 1),
            master: dtype == .bf16 && hasMaster ? try backend.random(1000, seed: 2) : nil,
            first: try backend.random(1000, dtype: narrow, seed: 3),
            second: try backend.random(1000, dtype: narrow, seed: 4),
            gradient: try backend.random(1000, dtype: narrow, seed: 5))
        let all = [buffers.weights, buffers.master, buffers.first, buffers.second, buffers.gradient].compactMap(\.self)
        let before = all.map(\.bits)
        for factor in [Float.nan, .infinity] {
            try backend.adamW(
                buffers, step(1), gradientScale: try scale(factor), rounding: rounding, firstElement: 0)
            #expect(all.map(\.bits) == before)
        }
        try backend.adamW(buffers, step(1), gradientScale: try scale(1), rounding: rounding, firstElement: 0)
        #expect(zip(all.dropLast().map(\.bits), before).allSatisfy { $0 != $1 })
    }
}
