// Shape letters: N ranks that hold the same.

/// Who else holds the same of a parameter as this rank, and whose gradients are added.
public struct Sharing: Sendable, Hashable {
    /// What the ranks of a tensor-parallel group, which hold the same tokens, have of a parameter.
    public enum OverTensorRanks: Int, Sendable {
        /// Each has a part of its own, or works alone.
        case divided
        /// All have all of it, and compute the same gradient.
        case same
        /// All have all of it, and each computes the gradient of its own part of the work: the gradients are added.
        case partial
    }

    /// What the ranks of the tensor group have of it.
    public let overTensorRanks: OverTensorRanks
    /// Of an expert's parameter, ranks that divide the experts of the layer among them; `nil` of any other.
    public let expertDegree: Int?

    /// That of a rank that works alone, unless told otherwise.
    public init(overTensorRanks: OverTensorRanks = .divided, expertDegree: Int? = nil) {
        self.overTensorRanks = overTensorRanks
        self.expertDegree = expertDegree
    }
}

/// The part of a rank in what N ranks that hold the same parameters divide among them: their optimizer state, the
/// reduction of their gradients, the sum of the gradients' squares (ZeRO, Rajbhandari et al. 2020, section 5).
public struct StateShare: Sendable, Equatable {
    /// Which part.
    public let index: Int
    /// N.
    public let count: Int

    /// Part `index` of `count`.
    public init(index: Int, count: Int) {
        precondition((0..<count).contains(index))
        self.index = index
        self.count = count
    }

    /// All of it.
    public static let whole = StateShare(index: 0, count: 1)

    /// Parts begin at multiples of this many elements, so that all types of them are aligned.
    static let unit = 64

    /// The elements that `count` elements are padded to, so that they divide.
    func padded(_ elements: Int) -> Int {
        guard count > 1 else { return elements }
        let unit = Self.unit * count
        return (elements + unit - 1) / unit * unit
    }

    /// This part of elements that divide.
    func part(of elements: Range<Int>) -> Range<Int> {
        let length = elements.count / count
        let first = elements.lowerBound + index * length
        return first..<first + length
    }
}
