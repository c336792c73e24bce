import ApusTensor

// Shape letters: F feed-forward width, P parameters of a base.

/// The largest base that a memory limit of each rank lets train, found by training models under it, and the one that
/// the formula of state foretells (DeepSpeed-TED section 3.2: the base may grow with the tensor degree).
///
/// A base grows by its F. What a step needs beside the formula's state, activations and workspace above all, is counted
/// in two smaller models and continued along a straight line, for it is a constant and a part that goes with F.
public struct LargestBase: Sendable {
    /// What grows; ``TEDBench/hidden`` is what is searched for.
    public let bench: TEDBench
    /// Most bytes of each rank.
    public let limit: Int
    /// F of the largest that trained; the next width did not.
    public let found: Int
    /// F that was foretold.
    public let foretold: Int
    /// Bytes that the largest needed at its highest moment, on the rank that needed most.
    public let peak: Int
    /// Bytes of that by the formula: weights, gradients and optimizer state.
    public let state: Int

    /// P of the largest that trained.
    public var foundBase: Int { bench.with(hidden: found).baseParameters }
    /// P that was foretold.
    public var foretoldBase: Int { bench.with(hidden: foretold).baseParameters }

    /// Widths are multiples of this for each tensor rank.
    public static let unit = 8

    /// Searches.
    ///
    /// - Parameter limit: Bytes of each rank's allocator.
    /// - Throws: ``TEDError/doesNotFit(limit:smallest:)``, and what a step throws besides running out of memory.
    public static func search(_ bench: TEDBench, limit: Int) throws -> LargestBase {
        let unit = unit * bench.tensor
        guard try trains(bench.with(hidden: unit), limit) else {
            throw TEDError.doesNotFit(limit: limit, smallest: bench.with(hidden: unit).baseParameters)
        }
        // State alone: it gives the size of the models that are counted, below half of what fits.
        var bound = 1
        while try allocated(bench.with(hidden: 2 * bound * unit)) <= limit { bound *= 2 }
        let small = (max(bound / 4, 1) * unit, max(bound / 2, 2) * unit)
        let beside = try (beside(bench.with(hidden: small.0)), beside(bench.with(hidden: small.1)))
        /// Bytes of a width, as foretold.
        func bytes(_ hidden: Int) throws -> Int {
            let slope = Double(beside.1 - beside.0) / Double(small.1 - small.0)
            return try allocated(bench.with(hidden: hidden)) + beside.0 + Int(slope * Double(hidden - small.0))
        }
        var foretold = 1
        while try bytes((foretold + 1) * unit) <= limit { foretold += 1 }
        // From what was foretold to both sides, until one trains and the other does not.
        var step = 1
        var (low, high) = (foretold, foretold + step)
        while try !trains(bench.with(hidden: low * unit), limit) {
            (low, high, step) = (max(low - step, 1), low, 2 * step)
        }
        while try trains(bench.with(hidden: high * unit), limit) { (low, high, step) = (high, high + step, 2 * step) }
        while high - low > 1 {
            let middle = (low + high) / 2
            if try trains(bench.with(hidden: middle * unit), limit) { low = middle } else { high = middle }
        }
        let largest = bench.with(hidden: low * unit)
        return LargestBase(
            bench: bench, limit: limit, found: low * unit, foretold: foretold * unit, peak: try peak(largest),
            state: try state(largest))
    }

    /// Bytes that a step needs beside the formula's state in the allocator's size classes.
    private static func beside(_ bench: TEDBench) throws -> Int { try peak(bench) - allocated(bench) }

    /// Bytes that a step has live at its highest moment, on the rank with most.
    private static func peak(_ bench: TEDBench) throws -> Int {
        try TEDStep.inProcess(bench.recipe, ranks: bench.ranks).map(\.memory.totalPeak).max() ?? 0
    }

    /// Bytes of the formula, on the rank with most.
    private static func state(_ bench: TEDBench) throws -> Int { try most(bench, \.whole.total) }

    /// The same in size classes.
    private static func allocated(_ bench: TEDBench) throws -> Int { try most(bench, \.allocatedWhole.total) }

    private static func most(_ bench: TEDBench, _ bytes: KeyPath<TEDMemory, Int>) throws -> Int {
        let (recipe, layout) = (bench.recipe, try bench.layout())
        return (0..<bench.ranks).map { TEDMemory(recipe, on: layout, rank: $0)[keyPath: bytes] }.max() ?? 0
    }

    private static func trains(_ bench: TEDBench, _ limit: Int) throws -> Bool {
        do {
            _ = try TEDStep.inProcess(bench.recipe, ranks: bench.ranks, memoryLimit: limit)
            return true
        } catch TensorError.outOfMemory {
            return false
        }
    }
}

extension TEDBench {
    /// The same with feed-forward layers and experts of another width.
    public func with(hidden: Int) -> TEDBench {
        var bench = self
        bench.hidden = hidden
        return bench
    }
}
