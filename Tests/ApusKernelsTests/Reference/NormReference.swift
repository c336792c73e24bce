/// RMSNorm and, with `centred`, LayerNorm over rows of `width` elements, in double precision.
struct NormReference {
    let width: Int
    let epsilon: Double
    let isCentred: Bool

    /// Of each row: its mean (0 for RMSNorm) and the reciprocal of its deviation.
    func statistics(_ x: [Double]) -> [(mean: Double, rstd: Double)] {
        stride(from: 0, to: x.count, by: width).map { begin in
            let row = x[begin..<begin + width]
            let mean = isCentred ? row.reduce(0, +) / Double(width) : 0
            let variance = row.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(width)
            return (mean, 1 / (variance + epsilon).squareRoot())
        }
    }

    func forward(_ x: [Double], weight: [Double], bias: [Double]? = nil) -> [Double] {
        let rows = statistics(x)
        return x.indices.map { index in
            let (row, column) = (rows[index / width], index % width)
            return (x[index] - row.mean) * row.rstd * weight[column] + (bias?[column] ?? 0)
        }
    }

    /// Gradients of input, weight and bias.
    func backward(_ dy: [Double], x: [Double], weight: [Double]) -> (dx: [Double], dweight: [Double], dbias: [Double]) {
        let rows = statistics(x)
        var dx = Array(repeating: 0.0, count: x.count)
        var (dweight, dbias) = (Array(repeating: 0.0, count: width), Array(repeating: 0.0, count: width))
        for (row, (mean, rstd)) in rows.enumerated() {
            let begin = row * width
            var (along, total) = (0.0, 0.0)
            for column in 0..<width {
                let normalized = (x[begin + column] - mean) * rstd
                dweight[column] += dy[begin + column] * normalized
                dbias[column] += dy[begin + column]
                along += dy[begin + column] * weight[column] * normalized
                total += dy[begin + column] * weight[column]
            }
            for column in 0..<width {
                let normalized = (x[begin + column] - mean) * rstd
                let centre = isCentred ? total / Double(width) : 0
                dx[begin + column] =
                    rstd * (dy[begin + column] * weight[column] - centre - normalized * along / Double(width))
            }
        }
        return (dx, dweight, dbias)
    }
}
