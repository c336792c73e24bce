import ApusKernels
import ApusTensor
import ApusTestSupport

/// The elements of an operand after its index and transposition, row by row.
func operandElements(_ matrix: Matrix) -> [Double] {
    let stored = matrix.tensor.doubles
    let width = matrix.tensor.shape[1]
    let rows = matrix.rows?.array(of: Int32.self).map(Int.init) ?? Array(0..<matrix.tensor.shape[0])
    let picked = rows.flatMap { stored[$0 * width..<($0 + 1) * width] }
    return matrix.isTransposed ? transposed(picked, rows: rows.count, columns: width) : picked
}

/// The transpose of a row-major matrix.
func transposed(_ values: [Double], rows: Int, columns: Int) -> [Double] {
    (0..<columns).flatMap { column in (0..<rows).map { values[$0 * columns + column] } }
}

/// `alpha * op(a) op(b) + beta * c` by definition.
func referenceProduct(_ a: Matrix, _ b: Matrix, c: [Double]? = nil, alpha: Double = 1, beta: Double = 0) -> [Double] {
    let product = referenceProduct(
        operandElements(a), operandElements(b), m: a.rowCount, n: b.columnCount, k: a.columnCount)
    return product.indices.map { alpha * product[$0] + (beta == 0 ? 0 : beta * (c?[$0] ?? 0)) }
}

/// (M, K) times (K, N), row-major.
func referenceProduct(_ a: [Double], _ b: [Double], m: Int, n: Int, k: Int) -> [Double] {
    var result = Array(repeating: 0.0, count: m * n)
    // Through pointers: this loop is most of what the tests of products compute.
    a.withUnsafeBufferPointer { a in
        b.withUnsafeBufferPointer { b in
            result.withUnsafeMutableBufferPointer { result in
                for row in 0..<m {
                    for inner in 0..<k {
                        let factor = a[row * k + inner]
                        for column in 0..<n { result[row * n + column] += factor * b[inner * n + column] }
                    }
                }
            }
        }
    }
    return result
}
