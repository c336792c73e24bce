/// The sequences of a step's batch that the ranks with one data coordinate compute.
///
/// A pass of all ranks takes the next `Gd m` sequences of the batch, of which each data rank takes `m` in a row. So what
/// ranks compute at the same time lies together, as the micro-batch of one rank would, and no group of consecutive
/// sequences is divided.
public struct BatchShare: Sendable, Equatable {
    /// The sequences of each forward and backward.
    public let passes: [Range<Int>]

    /// The share of `place` in `batch` sequences, at most `microBatch` at a time.
    public init(_ place: RankPlace, batch: Int, microBatch: Int) {
        let degree = place.layout.data
        let size = min(microBatch, batch / degree)
        precondition(size >= 1 && batch.isMultiple(of: size * degree), "\(batch) sequences for \(place.layout)")
        passes = stride(from: place.data * size, to: batch, by: size * degree).map { $0..<$0 + size }
    }
}
