import ApusKernels
import ApusTensor

// Element-wise.

extension FaultyBackend {
    func fill(_ tensor: Tensor, with value: Float) throws {
        inner.fill(tensor, with: value)
        done(.fill, tensor)
    }

    func copy(_ source: Tensor, into target: Tensor) throws {
        try inner.copy(source, into: target)
        done(.copy, target)
    }

    func add(_ left: Tensor, _ right: Tensor, into target: Tensor) throws {
        try inner.add(left, right, into: target)
        done(.add, target)
    }

    func addScaled(_ source: Tensor, factor: Float, into target: Tensor) throws {
        try inner.addScaled(source, factor: factor, into: target)
        done(.addScaled, target)
    }

    func scale(_ source: Tensor, by factor: Float, into target: Tensor) throws {
        try inner.scale(source, by: factor, into: target)
        done(.scale, target)
    }

    func multiply(_ left: Tensor, _ right: Tensor, into target: Tensor) throws {
        try inner.multiply(left, right, into: target)
        done(.multiply, target)
    }

    func convert(_ source: Tensor, into target: Tensor) throws {
        try inner.convert(source, into: target)
        done(.convert, target)
    }

    func addBias(_ source: Tensor, bias: Tensor, into target: Tensor) throws {
        try inner.addBias(source, bias: bias, into: target)
        done(.addBias, target)
    }

    func addColumnSums(_ source: Tensor, into sums: Tensor) throws {
        try inner.addColumnSums(source, into: sums)
        done(.addColumnSums, sums)
    }

    func sum(_ tensor: Tensor, factor: Float, into result: Tensor) throws {
        try inner.sum(tensor, factor: factor, into: result)
        done(.sum, result)
    }

    func countNonFinite(_ tensor: Tensor) throws -> Int {
        let result = try allocator.tensor([Int32(try inner.countNonFinite(tensor))], Shape(1), .workspace)
        done(.countNonFinite, result)
        return Int(result.array(of: Int32.self)[0])
    }

    func fillRandom(_ tensor: Tensor, _ distribution: RandomDistribution, stream: RandomStream, first: UInt64) throws {
        try inner.fillRandom(tensor, distribution, stream: stream, first: first)
        done(.fillRandom, tensor)
    }
}

// The end of a step.

extension FaultyBackend {
    func adamW(_ runs: [AdamWRun], gradientScale: Tensor) throws {
        try inner.adamW(runs, gradientScale: gradientScale)
        for buffers in runs.map(\.buffers) {
            done(.adamW, buffers.weights, buffers.master, buffers.first, buffers.second, buffers.gradient)
        }
    }

    func gradientSquares(_ gradients: [Tensor], into sum: Tensor) throws {
        try inner.gradientSquares(gradients, into: sum)
        done(.gradientSquares, sum)
    }

    func clipFactor(
        sumOfSquares: Tensor, loss: Tensor?, previous: Tensor?, limit: Float, into scale: Tensor
    ) throws {
        try inner.clipFactor(sumOfSquares: sumOfSquares, loss: loss, previous: previous, limit: limit, into: scale)
        done(.clipFactor, scale)
    }

    func moveSelectionBias(_ bias: Tensor, choices: [Tensor], rate: Float, gradientScale: Tensor) throws {
        try inner.moveSelectionBias(bias, choices: choices, rate: rate, gradientScale: gradientScale)
        done(.moveSelectionBias, bias)
    }
}
