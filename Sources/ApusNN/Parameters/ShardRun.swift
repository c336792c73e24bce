import ApusTensor

/// Elements that lie in a row both in what a rank holds of a parameter and in the whole parameter.
public struct ShardRun: Sendable, Equatable {
    /// Where they are in what is held.
    public let held: Range<Int>
    /// Where the first is in the whole.
    public let whole: Int

    /// A run.
    public init(held: Range<Int>, whole: Int) {
        self.held = held
        self.whole = whole
    }
}

extension Shard {
    /// Where some elements of what is held, in its own order, are in the whole parameter of `shape`.
    ///
    /// Entries of the dimensions above the cut are runs of consecutive elements in the whole.
    public func runs(of elements: Range<Int>, in shape: [Int]) -> [ShardRun] {
        let inner = shape[(dimension + 1)...].reduce(1, *)
        let length = range.count * inner
        let period = shape[dimension] * inner
        guard length > 0 else { return [] }
        var runs: [ShardRun] = []
        var first = elements.lowerBound
        while first < elements.upperBound {
            let (outer, place) = first.quotientAndRemainder(dividingBy: length)
            let end = min((outer + 1) * length, elements.upperBound)
            runs.append(ShardRun(held: first..<end, whole: outer * period + range.lowerBound * inner + place))
            first = end
        }
        return runs
    }
}

extension Parameter {
    /// Where some elements of what this rank holds are in the whole parameter.
    public func runs(of elements: Range<Int>) -> [ShardRun] {
        guard let shard else { return [ShardRun(held: elements, whole: elements.lowerBound)] }
        return shard.runs(of: elements, in: shape.dimensions)
    }
}
