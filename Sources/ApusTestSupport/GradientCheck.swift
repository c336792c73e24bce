public import ApusTensor
public import Testing

/// Compares a gradient with differences of the loss: along random directions, and for single elements.
///
/// Directions move every element at once and see the whole gradient; elements see that it is in the right place. Each
/// derivative is a central difference of fourth order, `(8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h`: its truncation
/// stays below the rounding of an `f32` forward pass at steps large enough to rise above that rounding.
public struct GradientCheck: Sendable {
    /// The step h of each element; for a loss with kinks smaller than the distance to the nearest.
    public var step: Float = 0.01
    /// Random directions of -1 and 1.
    public var directions = 3
    /// Single elements, spread over the tensor.
    public var elements = 6
    /// Largest difference, relative by norm over the directions and over the elements.
    public var tolerance = Tolerance.finiteDifference

    /// A check with the default step, counts and tolerance.
    public init() {}

    /// Expects `gradient` to be the derivative of `loss` with respect to the elements of `tensor`, a dense `f32` one.
    ///
    /// `loss` computes from the tensor's present contents, which are restored before the check returns.
    public func expect(
        _ gradient: [Float], of tensor: Tensor, _ name: String, sourceLocation: SourceLocation = #_sourceLocation,
        loss: () throws -> Double
    ) throws {
        precondition(tensor.isContiguous && gradient.count == tensor.count)
        let norm = gradient.reduce(0.0) { $0 + Double($1) * Double($1) }.squareRoot()
        var generator = SeededGenerator(seed: UInt64(tensor.count))
        var pairs: [(slope: Double, expected: Double)] = []
        for _ in 0..<directions {
            let signs = (0..<tensor.count).map { _ in Bool.random(using: &generator) ? Float(1) : -1 }
            let expected = zip(gradient, signs).reduce(0.0) { $0 + Double($1.0) * Double($1.1) }
            pairs.append((try slope(of: tensor, along: signs, loss), expected))
        }
        report(pairs, floor: norm, "\(name), directions", sourceLocation)
        pairs.removeAll()
        let picked = sample(gradient, &generator)
        for index in picked {
            var unit = Array(repeating: Float(0), count: tensor.count)
            unit[index] = 1
            pairs.append((try slope(of: tensor, along: unit, loss), Double(gradient[index])))
        }
        let share = (Double(picked.count) / Double(max(tensor.count, 1))).squareRoot()
        report(pairs, floor: norm * share, "\(name), elements \(picked)", sourceLocation)
    }

    /// The largest element and others at random.
    private func sample(_ gradient: [Float], _ generator: inout SeededGenerator) -> [Int] {
        guard let largest = gradient.indices.max(by: { abs(gradient[$0]) < abs(gradient[$1]) }) else { return [] }
        let others = gradient.indices.shuffled(using: &generator).filter { $0 != largest }.prefix(max(0, elements - 1))
        return ([largest] + others).sorted()
    }

    private func slope(of tensor: Tensor, along direction: [Float], _ loss: () throws -> Double) throws -> Double {
        let target = tensor.pointer(to: Float.self)
        let original = tensor.array(of: Float.self)
        defer { for index in original.indices { target[index] = original[index] } }
        func value(_ steps: Float) throws -> Double {
            for index in original.indices { target[index] = original[index] + steps * step * direction[index] }
            return try loss()
        }
        let near = try value(1) - value(-1)
        let far = try value(2) - value(-2)
        return (8 * near - far) / (12 * Double(step))
    }

    private func report(
        _ pairs: [(slope: Double, expected: Double)], floor: Double, _ name: String, _ sourceLocation: SourceLocation
    ) {
        let difference = pairs.reduce(0) { $0 + ($1.slope - $1.expected) * ($1.slope - $1.expected) }.squareRoot()
        let norm = pairs.reduce(0) { $0 + $1.slope * $1.slope }.squareRoot()
        let bound = tolerance * max(norm, floor, 1e-12)
        if difference <= bound { return }
        let text = pairs.map { "\($0.expected) against \($0.slope) by differences" }.joined(separator: "; ")
        Issue.record("\(name): off by \(difference), \(bound) allowed: \(text)", sourceLocation: sourceLocation)
    }
}

/// A loss whose derivative with respect to every output is known: the sum of `weights * values`, in double precision.
public func weightedSum(_ values: Tensor, _ weights: Tensor) -> Double {
    zip(values.floats(), weights.floats()).reduce(0) { $0 + Double($1.0) * Double($1.1) }
}
