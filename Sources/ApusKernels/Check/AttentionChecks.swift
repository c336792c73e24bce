import ApusTensor
import Glibc

// Shape letters: T query tokens, S sequences, Hq query heads, Hk key heads, H head width.

extension OpCheck {
    private static let cases = [
        AttentionCase(queries: [5, 1, 9], keys: [5, 1, 9], heads: (4, 2), width: 16, mask: .causal),
        AttentionCase(queries: [3, 4], keys: [8, 6], heads: (2, 1), width: 8, mask: .none),
        AttentionCase(queries: [70], keys: [70], heads: (2, 2), width: 64, mask: .causal),
        AttentionCase(
            queries: [20], keys: [20], heads: (4, 4), width: 32, mask: AttentionMask(isCausal: true, window: 6)),
        // Sequences of one length, which a device may give to its vendor's kernels.
        AttentionCase(queries: [333, 333], keys: [333, 333], heads: (2, 1), width: 64, mask: .causal, isFused: true),
        AttentionCase(queries: [128, 128], keys: [128, 128], heads: (2, 1), width: 128, mask: .causal, isFused: true),
        AttentionCase(queries: [65, 65, 65], keys: [65, 65, 65], heads: (2, 2), width: 128, mask: .causal),
        AttentionCase(queries: [130, 130], keys: [130, 130], heads: (2, 2), width: 64, mask: .none, isFused: true),
        AttentionCase(queries: [70, 70], keys: [140, 140], heads: (4, 2), width: 64, mask: .none),
        // Wide heads, for which a device's tiles are smaller, and widths that fill no whole vectors.
        AttentionCase(queries: [50, 3], keys: [90, 3], heads: (2, 1), width: 256, mask: .causal),
        AttentionCase(queries: [70], keys: [70], heads: (3, 1), width: 200, mask: .none),
        AttentionCase(
            queries: [80], keys: [80], heads: (3, 1), width: 128, mask: AttentionMask(isCausal: true, window: 20)),
        AttentionCase(queries: [70], keys: [90], heads: (1, 1), width: 100, mask: .causal),
    ]

    static let attention: [[OpCheck]] = [
        make("attention") { probe in
            for size in cases {
                let input = try AttentionInput(size, &probe)
                let (out, _) = try input.forward(probe)
                probe.expect(out, size.forward(input.q.values, input.k.values, input.v.values))
            }
        },
        make("attention over blocks") { probe in
            for headWidth in [16, 128, 256] {
                // Four queries at the end of 21 keys, whose two blocks of 16 lie in the other order.
                let size = AttentionCase(queries: [4], keys: [21], heads: (4, 2), width: headWidth, mask: .causal)
                let input = try AttentionInput(size, &probe)
                let width = size.heads.key * size.width
                let pad = Array(repeating: 0.0, count: 11 * width)
                let inBlocks = { (values: [Double]) in Array(values[(16 * width)...]) + pad + values[..<(16 * width)] }
                let shape = Shape(2, 16, size.heads.key, size.width)
                let view = KVView(
                    keys: try probe.put(inBlocks(input.k.values), shape, probe.dtype).tensor,
                    values: try probe.put(inBlocks(input.v.values), shape, probe.dtype).tensor,
                    layout: .blocks(table: try probe.put([1, 0], 1, 2), lengths: try probe.put([21], 1)))
                let out = try probe.empty(4, size.heads.query, size.width)
                try probe.backend.attention(
                    input.q.tensor, cumulativeLengths: input.queryStarts, kv: view, mask: size.mask,
                    scale: Float(size.scale), into: out, logSumExp: nil)
                probe.expect(out, size.forward(input.q.values, input.k.values, input.v.values))
            }
        },
        make("attention backward") { probe in
            for size in cases {
                let input = try AttentionInput(size, &probe)
                let (out, sums) = try input.forward(probe)
                let dout = try probe.draw(size.tokens, size.heads.query, size.width)
                let (dq, dk, dv) = try input.gradients(probe)
                try probe.backend.attentionBackward(
                    dout.tensor, q: input.q.tensor, cumulativeLengths: input.queryStarts, kv: input.view,
                    mask: size.mask,
                    scale: Float(size.scale), out: out, logSumExp: sums, dq: dq, dk: dk, dv: dv)
                let expected = size.backward(dout.values, input.q.values, input.k.values, input.v.values)
                probe.expect(dq, expected.dq)
                probe.expect(dk, expected.dk)
                probe.expect(dv, expected.dv)
            }
        },
    ]
}

/// Random queries, keys and values of a case on the backend.
private struct AttentionInput {
    let size: AttentionCase
    let q: CheckOperand, k: CheckOperand, v: CheckOperand
    let queryStarts: Tensor
    let view: KVView

    init(_ size: AttentionCase, _ probe: inout CheckProbe) throws {
        self.size = size
        if size.isFused {
            let fused = try probe.draw(size.tokens, size.fusedWidth)
            let parts = size.parts(fused.tensor)
            q = CheckOperand(tensor: parts.q, values: size.columns(of: fused.values, size.columns.q))
            k = CheckOperand(tensor: parts.k, values: size.columns(of: fused.values, size.columns.k))
            v = CheckOperand(tensor: parts.v, values: size.columns(of: fused.values, size.columns.v))
        } else {
            q = try probe.draw(size.tokens, size.heads.query, size.width)
            k = try probe.draw(size.keyTokens, size.heads.key, size.width)
            v = try probe.draw(size.keyTokens, size.heads.key, size.width)
        }
        queryStarts = try probe.put(size.queryStarts, size.queryStarts.count)
        view = KVView(
            keys: k.tensor, values: v.tensor,
            layout: .contiguous(cumulativeLengths: try probe.put(size.keyStarts, size.keyStarts.count)))
    }

    func forward(_ probe: CheckProbe) throws -> (out: Tensor, logSumExp: Tensor) {
        let out = try probe.empty(size.tokens, size.heads.query, size.width)
        let sums = try probe.empty(size.tokens, size.heads.query, dtype: .f32)
        try probe.backend.attention(
            q.tensor, cumulativeLengths: queryStarts, kv: view, mask: size.mask, scale: Float(size.scale), into: out,
            logSumExp: sums)
        return (out, sums)
    }

    /// Where the gradients go, laid out as the operands.
    func gradients(_ probe: CheckProbe) throws -> (q: Tensor, k: Tensor, v: Tensor) {
        if size.isFused { return size.parts(try probe.empty(size.tokens, size.fusedWidth)) }
        let (queries, keys) = (size.heads.query, size.heads.key)
        return (
            try probe.empty(size.tokens, queries, size.width), try probe.empty(size.keyTokens, keys, size.width),
            try probe.empty(size.keyTokens, keys, size.width)
        )
    }
}

/// Attention by its definition.
private struct AttentionCase: Sendable {
    let queries: [Int], keys: [Int]
    let heads: (query: Int, key: Int)
    let width: Int
    let mask: AttentionMask
    /// Whether queries, keys and values are slices of one projection.
    var isFused = false

    /// Columns of the projection.
    var fusedWidth: Int { columns.v.upperBound }

    /// The columns of each slice.
    var columns: (q: Range<Int>, k: Range<Int>, v: Range<Int>) {
        let (query, key) = (heads.query * width, heads.key * width)
        return (0..<query, query..<query + key, query + key..<query + 2 * key)
    }

    /// Queries, keys and values of a projection.
    func parts(_ fused: Tensor) -> (q: Tensor, k: Tensor, v: Tensor) {
        func part(_ columns: Range<Int>) -> Tensor {
            fused.columns(columns).reshaped(fused.shape[0], columns.count / width, width)
        }
        return (part(columns.q), part(columns.k), part(columns.v))
    }

    /// The elements of a slice.
    func columns(of fused: [Double], _ columns: Range<Int>) -> [Double] {
        stride(from: 0, to: fused.count, by: fusedWidth).flatMap { row in
            fused[row + columns.lowerBound..<row + columns.upperBound]
        }
    }

    var tokens: Int { queries.reduce(0, +) }
    var keyTokens: Int { keys.reduce(0, +) }
    var queryStarts: [Int] { starts(queries) }
    var keyStarts: [Int] { starts(keys) }
    var scale: Double { 1 / Double(width).squareRoot() }

    private func starts(_ lengths: [Int]) -> [Int] { lengths.reduce(into: [0]) { $0.append($0[$0.count - 1] + $1) } }

    /// Calls `body` with the offset of each query head, and offset and probability of each key that it sees.
    private func forEachHead(
        _ q: [Double], _ k: [Double], _ body: (_ query: Int, _ seen: [(key: Int, probability: Double)]) -> Void
    ) {
        let (queryStarts, keyStarts) = (queryStarts, keyStarts)
        for s in queries.indices {
            for i in 0..<queries[s] {
                let end = mask.isCausal ? max(0, keys[s] - queries[s] + i + 1) : keys[s]
                let begin = mask.window > 0 ? max(0, end - mask.window) : 0
                for head in 0..<heads.query {
                    let query = ((queryStarts[s] + i) * heads.query + head) * width
                    let places = (begin..<end).map {
                        ((keyStarts[s] + $0) * heads.key + head * heads.key / heads.query) * width
                    }
                    let scores = places.map { key in scale * (0..<width).reduce(0) { $0 + q[query + $1] * k[key + $1] }
                    }
                    let largest = scores.max() ?? 0
                    let sum = scores.reduce(0) { $0 + exp($1 - largest) }
                    body(query, zip(places, scores).map { ($0, exp($1 - largest) / sum) })
                }
            }
        }
    }

    func forward(_ q: [Double], _ k: [Double], _ v: [Double]) -> [Double] {
        var out = q.map { _ in 0.0 }
        forEachHead(q, k) { query, seen in
            for (key, probability) in seen {
                for x in 0..<width { out[query + x] += probability * v[key + x] }
            }
        }
        return out
    }

    func backward(
        _ dout: [Double], _ q: [Double], _ k: [Double], _ v: [Double]
    ) -> (dq: [Double], dk: [Double], dv: [Double]) {
        var (dq, dk, dv) = (q.map { _ in 0.0 }, k.map { _ in 0.0 }, v.map { _ in 0.0 })
        forEachHead(q, k) { query, seen in
            let slopes = seen.map { key, _ in (0..<width).reduce(0) { $0 + dout[query + $1] * v[key + $1] } }
            let mean = zip(seen, slopes).reduce(0) { $0 + $1.0.probability * $1.1 }
            for ((key, probability), slope) in zip(seen, slopes) {
                let dscore = scale * probability * (slope - mean)
                for x in 0..<width {
                    dv[key + x] += probability * dout[query + x]
                    dq[query + x] += dscore * k[key + x]
                    dk[key + x] += dscore * q[query + x]
                }
            }
        }
        return (dq, dk, dv)
    }
}
