import ApusCollectives
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Glibc
import Testing

extension Tape {
    /// The sum of `weights * x * x` as a root of weight 1, and its value: a loss whose gradient depends on the value.
    func addWeightedSquares(of x: Variable, weights: [Float]) throws -> Double {
        let values = x.tensor.floats()
        let seed = try backend.allocator.tensor(zip(values, weights).map { 2 * $0 * $1 }, x.shape)
        try addRoot(x, seed: seed)
        return zip(values, weights).reduce(0) { $0 + Double($1.0) * Double($1.0) * Double($1.1) }
    }

    /// The square of every element: a compute node between two exchanges.
    func squared(_ x: Variable) throws -> Variable {
        let y = try backend.empty(x.shape, x.dtype)
        try backend.multiply(x.tensor, x.tensor, into: y)
        return record("squared", inputs: [x], output: y) { flow in
            guard let dy = flow.output() else { return }
            let dx = try flow.backend.empty(x.shape, x.dtype)
            try flow.backend.multiply(dy, x.tensor, into: dx)
            try flow.backend.scale(dx, by: 2, into: dx)
            try flow.accumulate(dx, into: x)
        }
    }

    /// `factor * x`: what a rank with its own weight computes.
    func scaled(_ x: Variable, by factor: Float) throws -> Variable {
        let y = try backend.empty(x.shape, x.dtype)
        try backend.scale(x.tensor, by: factor, into: y)
        return record("scaled", inputs: [x], output: y) { flow in
            guard let dy = flow.output() else { return }
            let dx = try flow.backend.empty(x.shape, x.dtype)
            try flow.backend.scale(dy, by: factor, into: dx)
            try flow.accumulate(dx, into: x)
        }
    }

    /// The value itself, made and differentiated in `milliseconds` each without using the processor: the dense path
    /// of a block that something else runs beside.
    func idling(_ x: Variable, milliseconds: Int) -> Variable {
        usleep(UInt32(milliseconds * 1000))
        return record("idling", inputs: [x], output: x.tensor) { flow in
            guard let gradient = flow.output() else { return }
            usleep(UInt32(milliseconds * 1000))
            try flow.accumulate(gradient, into: x)
        }
    }
}

/// Fixed values that look random, in -1 ..< 1 and never small.
func exchangeValues(_ count: Int, seed: Int) -> [Float] {
    (0..<count).map { index in
        let size = Float((index * 37 + seed * 101) % 64 + 8) / 72
        return (index * 7 + seed) % 3 == 0 ? -size : size
    }
}

/// A program on a world: given a rank's tape, leaf and communicator, records ops and roots and returns the loss.
typealias RankProgram = @Sendable (Tape, Variable, any Collective) throws -> Double

/// Runs `program` on every rank from the given inputs, of `shapes`; returns each rank's loss and input gradient.
func runExchange(
    _ inputs: [[Float]], _ shapes: [Shape], schedule: BackwardSchedule = .reverse,
    _ program: @escaping RankProgram
) throws -> [(loss: Double, gradient: [Float])] {
    try InProcess.run(ranks: inputs.count) { collective in
        let tape = Tape(backend: CPUBackend(threadCount: 1))
        let tensor = try tape.backend.allocator.tensor(inputs[collective.rank], shapes[collective.rank])
        let x = tape.leaf(tensor)
        let loss = try program(tape, x, collective)
        try tape.backward(schedule: schedule)
        return (loss, tape.gradient(of: x)?.floats() ?? Array(repeating: 0, count: tensor.count))
    }
}

/// How the ranks' values relate in a gradient check.
struct ExchangeLayout: OptionSet {
    let rawValue: Int

    /// All ranks hold the same input, so that an element moves on all of them at once.
    static let replicatedInput = ExchangeLayout(rawValue: 1)
    /// All ranks compute the same loss, which counts once.
    static let replicatedLoss = ExchangeLayout(rawValue: 2)
}

/// Compares every rank's input gradient with central differences of the loss of the whole world; one shape a rank.
func expectExchangeGradient(
    _ shapes: [Shape], _ layout: ExchangeLayout = [], schedule: BackwardSchedule = .reverse,
    sourceLocation: SourceLocation = #_sourceLocation, _ program: @escaping RankProgram
) throws {
    let isSame = layout.contains(.replicatedInput)
    let inputs = shapes.enumerated().map { exchangeValues($1.count, seed: isSame ? 1 : $0 + 1) }
    let results = try runExchange(inputs, shapes, schedule: schedule, program)
    func loss(movedBy step: Float, rank: Int, index: Int) throws -> Double {
        var moved = inputs
        for other in shapes.indices where isSame || other == rank { moved[other][index] += step }
        let losses = try runExchange(moved, shapes, program).map(\.loss)
        return layout.contains(.replicatedLoss) ? losses[0] : losses.reduce(0, +)
    }
    let step: Float = 0.02
    for rank in shapes.indices {
        var expected: [Double] = []
        // With the same input everywhere, every rank must hold the same gradient, so differences are taken once.
        if isSame && rank > 0 {
            expected = results[0].gradient.map(Double.init)
        } else {
            for index in inputs[rank].indices {
                let ahead = try loss(movedBy: step, rank: rank, index: index)
                let behind = try loss(movedBy: -step, rank: rank, index: index)
                expected.append((ahead - behind) / Double(2 * step))
            }
        }
        expectClose(
            results[rank].gradient, expected, within: Tolerance.finiteDifference, "gradient of rank \(rank)",
            sourceLocation: sourceLocation)
    }
}
