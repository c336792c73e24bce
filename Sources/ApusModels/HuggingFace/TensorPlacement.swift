import ApusTensor

/// A part of a stored tensor that is a whole tensor of Apus.
public struct TensorSlice: Sendable, Equatable {
    /// The name in Apus.
    public let name: String
    /// Extents in Apus.
    public let shape: [Int]
    /// Its elements within the stored tensor, counted in row-major order; one piece.
    public let elements: Range<Int>
}

/// A tensor of a file, and where its elements belong.
public struct TensorPlacement: Sendable, Equatable {
    /// The name in the file.
    public let hubName: String
    /// Extents in the file.
    public let hubShape: [Int]
    /// Its parts, in the order of their elements; together they are the whole tensor.
    public let slices: [TensorSlice]
}

/// Tensors of a file that do not make up the model.
public struct TensorMapError: Error, Sendable, Equatable {
    /// One tensor's trouble; names are those of the file.
    public enum Problem: Sendable, Equatable {
        /// The model needs it and the file has not got it.
        case missing(name: String, shape: [Int])
        /// It is there in another shape.
        case wrongShape(name: String, found: [Int], expected: [Int])
        /// It holds what another tensor of the file holds too.
        case twice(name: String, also: String)
        /// The model has no place for it.
        case leftOver(name: String, shape: [Int])
    }

    /// All of them: first those of the model's tensors, in the model's order, then what is left over, in the file's.
    public let problems: [Problem]
}

extension TensorMapError: CustomStringConvertible {
    /// The first twenty problems, one a line, and how many more there are.
    public var description: String {
        let shown = problems.prefix(20).map { "  \($0)" }
        let rest = problems.count - shown.count
        let noun = problems.count == 1 ? "tensor does" : "tensors do"
        return "\(problems.count) \(noun) not fit the model; compare 'config.json' with the model the file is of:\n"
            + (shown + (rest > 0 ? ["  and \(rest) more"] : [])).joined(separator: "\n")
    }
}

extension TensorMapError.Problem: CustomStringConvertible {
    /// The tensor and what is wrong with it.
    public var description: String {
        switch self {
        case .missing(let name, let shape): "\(quoted(name)) \(shape) is missing"
        case .wrongShape(let name, let found, let expected):
            "\(quoted(name)) has shape \(found) instead of \(expected)"
        case .twice(let name, let also): "\(quoted(name)) holds what \(quoted(also)) holds too"
        case .leftOver(let name, let shape): "\(quoted(name)) \(shape) has no place in the model"
        }
    }
}
