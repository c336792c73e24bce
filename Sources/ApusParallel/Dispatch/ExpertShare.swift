// Shape letters: F expert width, E experts.

/// The experts of a layer that one place of an expert group holds.
///
/// With at least as many experts as ranks, E / Ge experts in a row, whole. With more ranks than experts, one expert, of
/// whose F a slice: place `p` holds slice `p / E` of expert `p % E` (MegaBlocks' hidden sharding). Every rank that
/// holds a slice of an expert gets all of its tokens, and their results are added.
public struct ExpertShare: Sendable, Equatable {
    /// The experts.
    public let experts: Range<Int>
    /// Which slice of their F, below ``slices``.
    public let slice: Int
    /// Slices that F is cut into.
    public let slices: Int

    /// The share of the place `place` of a group of `degree` ranks that divides `experts` experts.
    public init(place: Int, degree: Int, experts: Int) {
        precondition((0..<degree).contains(place), "place \(place) of \(degree)")
        precondition(
            experts.isMultiple(of: degree) || degree.isMultiple(of: experts), "\(experts) experts on \(degree) ranks")
        if degree <= experts {
            let count = experts / degree
            self.experts = place * count..<(place + 1) * count
            (slice, slices) = (0, 1)
        } else {
            self.experts = place % experts..<place % experts + 1
            (slice, slices) = (place / experts, degree / experts)
        }
    }

    /// The places that hold `expert`, by slice: where its tokens go.
    public static func holders(of expert: Int, degree: Int, experts: Int) -> [Int] {
        degree <= experts
            ? [expert / (experts / degree)] : Array(stride(from: expert, to: degree, by: experts))
    }
}
