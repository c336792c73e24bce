import CApusDrivers

/// A graph of cuDNN's under construction: tensors in memory, intermediate ones, and the operations between them.
///
/// Which graphs have a fused kernel is the library's business, and it is particular about their form: the order of the
/// operations, and the type in which each computes, are part of it.
struct AttentionGraph {
    /// Extents and strides, outermost first.
    struct Layout: Equatable {
        var extents: [Int]
        var strides: [Int]

        /// A dense one.
        init(dense extents: Int...) {
            self.extents = extents
            strides = extents.indices.map { extents[($0 + 1)...].reduce(1, *) }
        }

        init(_ extents: [Int], strides: [Int]) {
            self.extents = extents
            self.strides = strides
        }

        /// The last two dimensions exchanged: the same elements, read as the transpose.
        var transposed: Layout {
            var result = self
            result.extents.swapAt(2, 3)
            result.strides.swapAt(2, 3)
            return result
        }
    }

    /// A tensor of the graph.
    struct Node {
        let descriptor: GraphDescriptor
        let layout: Layout
    }

    private let library: AttentionLibrary
    private var operations: [GraphDescriptor] = []
    private var nextIntermediate = 100

    init(_ library: AttentionLibrary) { self.library = library }

    /// The whole, ready for a plan.
    func finished() throws(CUDAError) -> GraphDescriptor {
        let graph = try GraphDescriptor(APUS_DNN_GRAPH, "attention", library)
        try graph.set(APUS_DNN_GRAPH_OPERATIONS, operations)
        try graph.setHandle(APUS_DNN_GRAPH_HANDLE)
        try graph.finish()
        return graph
    }

    /// A tensor in memory.
    func tensor(_ role: AttentionRole, _ layout: Layout, _ type: Int32) throws(CUDAError) -> Node {
        try node(role.rawValue, "\(role)", layout, type)
    }

    /// A number that is handed over with each call.
    func scalar(_ role: AttentionRole) throws(CUDAError) -> Node {
        try node(role.rawValue, "\(role)", Layout(dense: 1, 1, 1, 1), APUS_DNN_F32, isByValue: true)
    }

    /// A tensor that is never in memory.
    mutating func intermediate(_ layout: Layout, _ type: Int32 = APUS_DNN_F32) throws(CUDAError) -> Node {
        nextIntermediate += 1
        return try node(nextIntermediate, "an intermediate tensor", layout, type, isVirtual: true)
    }

    private func node(
        _ identifier: Int, _ name: String, _ layout: Layout, _ type: Int32, isVirtual: Bool = false,
        isByValue: Bool = false
    ) throws(CUDAError) -> Node {
        let tensor = try GraphDescriptor(APUS_DNN_TENSOR, name, library)
        try tensor.set(APUS_DNN_TENSOR_TYPE, type, of: APUS_DNN_VALUE_ELEMENT_TYPE)
        try tensor.set(APUS_DNN_TENSOR_EXTENTS, layout.extents)
        try tensor.set(APUS_DNN_TENSOR_STRIDES, layout.strides)
        try tensor.set(APUS_DNN_TENSOR_ID, [identifier])
        try tensor.set(APUS_DNN_TENSOR_ALIGNMENT, [FusedShape.alignment])
        if isVirtual { try tensor.set(APUS_DNN_TENSOR_IS_VIRTUAL, true) }
        if isByValue { try tensor.set(APUS_DNN_TENSOR_IS_BY_VALUE, true) }
        try tensor.finish()
        return Node(descriptor: tensor, layout: layout)
    }

    /// `mode` of one, two or three operands, element by element; into an intermediate tensor like `x` unless told otherwise.
    mutating func pointwise(
        _ mode: Int32, _ x: Node, _ b: Node? = nil, where t: Node? = nil, axis: Int? = nil,
        in compute: Int32 = APUS_DNN_F32, as type: Int32 = APUS_DNN_F32, into given: Node? = nil
    ) throws(CUDAError) -> Node {
        let kind = try GraphDescriptor(APUS_DNN_POINTWISE, "element-wise operation \(mode)", library)
        try kind.set(APUS_DNN_POINTWISE_MODE, mode, of: APUS_DNN_VALUE_POINTWISE_MODE)
        try kind.set(APUS_DNN_POINTWISE_COMPUTE_TYPE, compute, of: APUS_DNN_VALUE_ELEMENT_TYPE)
        if let axis { try kind.set(APUS_DNN_POINTWISE_AXIS, [axis]) }
        try kind.finish()
        var y = given
        if y == nil { y = try intermediate(x.layout, type) }
        guard let y else { preconditionFailure("a result was made above") }
        let operation = try GraphDescriptor(
            APUS_DNN_POINTWISE_OPERATION, "the operands of element-wise operation \(mode)", library)
        try operation.set(APUS_DNN_POINTWISE_OPERATION_KIND, kind)
        try operation.set(APUS_DNN_POINTWISE_OPERATION_X, x.descriptor)
        if let b { try operation.set(APUS_DNN_POINTWISE_OPERATION_B, b.descriptor) }
        if let t { try operation.set(APUS_DNN_POINTWISE_OPERATION_T, t.descriptor) }
        try operation.set(APUS_DNN_POINTWISE_OPERATION_Y, y.descriptor)
        return try added(operation, y)
    }

    /// `c = a b`, of which only the first `rows`, `columns` and contracted `depth` count where they are given.
    mutating func product(
        _ a: Node, _ b: Node, into c: Node, rows: Node? = nil, columns: Node? = nil, depth: Node? = nil
    ) throws(CUDAError) -> Node {
        let kind = try GraphDescriptor(APUS_DNN_PRODUCT, "a product", library)
        try kind.set(APUS_DNN_PRODUCT_COMPUTE_TYPE, APUS_DNN_F32, of: APUS_DNN_VALUE_ELEMENT_TYPE)
        try kind.finish()
        let operation = try GraphDescriptor(APUS_DNN_PRODUCT_OPERATION, "the operands of a product", library)
        try operation.set(APUS_DNN_PRODUCT_OPERATION_KIND, kind)
        try operation.set(APUS_DNN_PRODUCT_OPERATION_A, a.descriptor)
        try operation.set(APUS_DNN_PRODUCT_OPERATION_B, b.descriptor)
        try operation.set(APUS_DNN_PRODUCT_OPERATION_C, c.descriptor)
        if let rows { try operation.set(APUS_DNN_PRODUCT_OPERATION_M, rows.descriptor) }
        if let columns { try operation.set(APUS_DNN_PRODUCT_OPERATION_N, columns.descriptor) }
        if let depth { try operation.set(APUS_DNN_PRODUCT_OPERATION_K, depth.descriptor) }
        return try added(operation, c)
    }

    /// Brings the extents of `x` down to those of `y`, by sum or largest.
    mutating func reduce(_ reduction: Int32, _ x: Node, into y: Node) throws(CUDAError) -> Node {
        let kind = try GraphDescriptor(APUS_DNN_REDUCTION, "a reduction", library)
        try kind.set(APUS_DNN_REDUCTION_COMPUTE_TYPE, APUS_DNN_F32, of: APUS_DNN_VALUE_ELEMENT_TYPE)
        try kind.set(APUS_DNN_REDUCTION_OPERATOR, reduction, of: APUS_DNN_VALUE_REDUCTION_OPERATOR)
        try kind.finish()
        let operation = try GraphDescriptor(APUS_DNN_REDUCTION_OPERATION, "the operands of a reduction", library)
        try operation.set(APUS_DNN_REDUCTION_OPERATION_KIND, kind)
        try operation.set(APUS_DNN_REDUCTION_OPERATION_X, x.descriptor)
        try operation.set(APUS_DNN_REDUCTION_OPERATION_Y, y.descriptor)
        return try added(operation, y)
    }

    /// `x` read by another layout, and as `bf16`.
    mutating func view(_ x: Node, as layout: Layout) throws(CUDAError) -> Node {
        let y = try intermediate(layout, APUS_DNN_BF16)
        let operation = try GraphDescriptor(APUS_DNN_RESHAPE_OPERATION, "a view", library)
        try operation.set(APUS_DNN_RESHAPE_OPERATION_X, x.descriptor)
        try operation.set(APUS_DNN_RESHAPE_OPERATION_Y, y.descriptor)
        return try added(operation, y)
    }

    private mutating func added(_ operation: GraphDescriptor, _ result: Node) throws(CUDAError) -> Node {
        try operation.finish()
        operations.append(operation)
        return result
    }
}
