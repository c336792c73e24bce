/// Why a model cannot be divided over ranks as asked.
public enum PartitionError: Error, Sendable, Equatable {
    /// A dimension of `count` units cannot be given to `ranks` ranks in equal shares.
    case notDivisible(parameter: String, units: String, count: Int, ranks: Int)
    /// Sequence parallelism gives each rank the same number of tokens, and these do not divide.
    case tokens(count: Int, ranks: Int)
    /// A layer's experts cannot be given to the ranks of its expert group in equal shares, nor each to equally many.
    case experts(count: Int, ranks: Int, layer: Int)
    /// With more ranks than experts each of `experts` experts is cut into `slices`, and the `count` units of it that a
    /// tensor rank has do not divide.
    case slices(parameter: String, units: String, count: Int, slices: Int, experts: Int)
}

extension PartitionError: CustomStringConvertible {
    /// One sentence on what does not fit, one on what would.
    public var description: String {
        switch self {
        case .notDivisible(let parameter, let units, let count, let ranks):
            return """
                \(parameter): \(count) \(units) cannot be divided equally over \(ranks) tensor-parallel ranks. \
                Use a tensor degree of \(nearest(to: ranks, below: count + 1) { count.isMultiple(of: $0) }).
                """
        case .tokens(let count, let ranks):
            return """
                sequence parallelism cannot divide \(count) tokens equally over \(ranks) tensor-parallel ranks. \
                Make the tokens of a micro-batch a multiple of \(ranks) (the nearest are \(count / ranks * ranks) and \
                \((count / ranks + 1) * ranks)), or switch sequence parallelism off.
                """
        case .experts(let count, let ranks, let layer):
            let degrees = nearest(to: ranks, below: ranks + count + 1) {
                count.isMultiple(of: $0) || $0.isMultiple(of: count)
            }
            return """
                layer \(layer): \(count) experts cannot be divided equally over \(ranks) ranks, nor each cut into \
                equally many slices. Use an expert degree of \(degrees).
                """
        case .slices(let parameter, let units, let count, let slices, let experts):
            let degrees = nearest(to: slices * experts, below: count * experts + 1) {
                $0.isMultiple(of: experts) && count.isMultiple(of: $0 / experts)
            }
            return """
                \(parameter): \(count) \(units) on each tensor-parallel rank cannot be cut into \(slices) equal slices, \
                which an expert degree of \(slices * experts) over \(experts) experts means. \
                Use an expert degree of \(degrees).
                """
        }
    }
}

/// The nearest degrees on both sides of `degree` that work, all of which are below `end`, for a message.
private func nearest(to degree: Int, below end: Int, _ works: (Int) -> Bool) -> String {
    let around = [(1..<degree + 1).last(where: works), (degree + 1..<max(end, degree + 1)).first(where: works)]
    return around.compactMap { $0.map(String.init) }.joined(separator: " or ")
}
