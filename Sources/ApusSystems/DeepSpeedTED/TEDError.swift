/// What the account of DeepSpeed-TED cannot do.
public enum TEDError: Error, Sendable, Equatable {
    /// A setting that has no formula; the text says which, and what would do.
    case notCounted(String)
    /// A model that even at its smallest does not fit a memory limit.
    case doesNotFit(limit: Int, smallest: Int)
}

extension TEDError: CustomStringConvertible {
    /// One sentence on what is wrong, and what would work.
    public var description: String {
        switch self {
        case .notCounted(let reason): "no formula for this recipe's traffic: \(reason)"
        case .doesNotFit(let limit, let smallest):
            "a model with \(smallest) base parameters does not fit \(limit) bytes: raise the limit"
        }
    }
}
