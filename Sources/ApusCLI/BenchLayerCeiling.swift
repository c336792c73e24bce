import ApusKernels
import ApusNN
import ApusTensor

// Shape letters: T tokens, D model width, F expert width, E experts, K choices per token, R routed rows.

/// What a layer's forward and backward cannot pass on a machine: its products as dense ones of as many rows with one
/// expert's weights and no activation, and its bytes at the speed of a copy.
struct LayerCeiling {
    private let shape: LayerShape
    private let precision: Precision
    private let rows: Tensor
    private let inner: Tensor
    private let wide: Tensor
    private let first: Tensor
    private let second: Tensor
    private let result: Tensor
    let backend: any Backend

    init(_ shape: LayerShape, _ precision: Precision, _ backend: any Backend) throws {
        let dtype = precision.modelType
        let width = shape.expertWidth * shape.activation.inputsPerOutput
        self.shape = shape
        self.precision = precision
        self.backend = backend
        rows = try backend.random(Shape(shape.rows, shape.width), dtype)
        inner = try backend.random(Shape(shape.rows, shape.expertWidth), dtype)
        wide = try backend.random(Shape(shape.rows, width), dtype)
        first = try backend.random(Shape(width, shape.width), dtype, deviation: 0.02)
        second = try backend.random(Shape(shape.width, shape.expertWidth), dtype, deviation: 0.02)
        result = try backend.empty(
            Shape(max(shape.rows * max(shape.width, width), width * shape.width)), dtype, .workspace)
    }

    /// The six products of forward and backward: two, and for each of them two in backward.
    func products() throws {
        try multiply(rows.matrix, first.transpose)
        try multiply(inner.matrix, second.transpose)
        try multiply(rows.matrix, second.matrix)
        try multiply(rows.transpose, inner.matrix)
        try multiply(wide.transpose, rows.matrix)
        try multiply(wide.matrix, first.matrix)
    }

    private func multiply(_ a: Matrix, _ b: Matrix) throws {
        let target = result[0..<a.rowCount * b.columnCount].reshaped(a.rowCount, b.columnCount)
        try backend.matMul(a, b, into: target)
    }

    /// Operations of the experts, forward and backward: 18 T K D F for SwiGLU. The router is not counted.
    static func operations(_ shape: LayerShape) -> Double {
        6 * Double(shape.rows) * Double(shape.width) * Double(shape.expertWidth)
            * Double(shape.activation.inputsPerOutput + 1)
    }

    /// Bytes that forward and backward move when every op reads its operands once and writes its results once, none of
    /// them kept in a cache: with I = 2 for a gated activation, else 1, and R = T K,
    ///
    /// - forward: x, logits and scores; first product (T D, weights, R I F), activation (R I F, R F), second product
    ///   (R F, weights, R D), combination (R D, T D);
    /// - backward: combination (T D, R D read, R D written), gradient of the activations (R D, weights, R F), the
    ///   activation's (R F and R I F read, R I F and R F written), two weight gradients (R D, R F; R I F, T D; the
    ///   gradients written), the rows' gradient (R I F, weights, R D), their sum by token (R D, T D), and the
    ///   router's (x, its own gradient, dx read and written).
    var bytes: Double {
        let element = Double(precision.modelType.byteCount)
        let (tokens, routed) = (Double(shape.tokens), Double(shape.rows))
        let (width, inner) = (Double(shape.width), Double(shape.expertWidth))
        let outer = inner * Double(shape.activation.inputsPerOutput)
        let weights = Double(shape.experts) * width * (inner + outer)
        let forward = 2 * tokens * width + routed * (2 * outer + 2 * inner + 2 * width)
        let backward = 3 * tokens * width + routed * (6 * width + 4 * inner + 4 * outer)
        let router = element * 4 * tokens * width + 4 * tokens * Double(shape.experts) * 6
        // Weights are read forward and backward; gradients are written.
        return element * (forward + backward + 2 * weights) + router
            + weights * Double(precision.gradientType.byteCount)
    }
}
