/// The extents of a tensor, at most four, held inline so that a view never allocates.
public struct Shape: Sendable {
    /// The largest number of dimensions a tensor may have.
    public static let maximumRank = 4

    /// Number of dimensions, 0 for a scalar.
    public let rank: Int
    private var extents: [4 of Int]

    /// A shape with the given extents, outermost first.
    public init(_ dimensions: Int...) {
        self.init(dimensions)
    }

    /// A shape with the given extents, outermost first.
    public init(_ dimensions: [Int]) {
        precondition(dimensions.count <= Shape.maximumRank, "a tensor has at most \(Shape.maximumRank) dimensions")
        precondition(dimensions.allSatisfy { $0 >= 0 }, "extents are not negative")
        rank = dimensions.count
        extents = .init(repeating: 1)
        for (index, extent) in dimensions.enumerated() { extents[index] = extent }
    }

    /// The extent of dimension `index`; negative counts from the innermost.
    public subscript(index: Int) -> Int {
        let position = index < 0 ? rank + index : index
        precondition(position >= 0 && position < rank, "dimension \(index) of a tensor with \(rank) dimensions")
        return extents[position]
    }

    /// Number of elements.
    public var count: Int {
        var product = 1
        for index in 0..<rank { product *= extents[index] }
        return product
    }

    /// Number of elements below the outermost dimension; 1 for a scalar.
    public var rowCount: Int {
        var product = 1
        for index in 1..<max(rank, 1) { product *= extents[index] }
        return product
    }

    /// The extents as an array, outermost first.
    public var dimensions: [Int] { (0..<rank).map { extents[$0] } }

    /// The same shape with another outermost extent.
    public func replacingFirst(with extent: Int) -> Shape {
        precondition(rank > 0 && extent >= 0)
        var copy = self
        copy.extents[0] = extent
        return copy
    }
}

extension Shape: Equatable {
    /// Whether both have the same rank and extents.
    public static func == (left: Shape, right: Shape) -> Bool {
        guard left.rank == right.rank else { return false }
        for index in 0..<left.rank where left.extents[index] != right.extents[index] { return false }
        return true
    }
}

extension Shape: CustomStringConvertible {
    /// For messages: `(2048, 256)`.
    public var description: String { "(" + dimensions.map(String.init).joined(separator: ", ") + ")" }
}
