import Glibc

// Shape letters: T query tokens, S sequences, Hq query heads, Hk key heads, H head width.

/// Attention by definition, in double precision, over dense (T, Hq, H) queries and (tokens, Hk, H) keys and values.
struct AttentionReference {
    var queryHeads: Int, keyHeads: Int, width: Int
    var queryStarts: [Int], keyStarts: [Int]
    var isCausal = true
    var window = 0
    var firstKey: [Int]?
    var scale: Double

    /// The keys that query `i` of sequence `s` sees, as tokens.
    func visible(_ s: Int, _ i: Int) -> Range<Int> {
        let queries = queryStarts[s + 1] - queryStarts[s]
        let keys = keyStarts[s + 1] - keyStarts[s]
        let end = isCausal ? max(0, min(keys, keys - queries + i + 1)) : keys
        var begin = firstKey?[queryStarts[s] + i] ?? 0
        if window > 0 { begin = max(begin, end - window) }
        return keyStarts[s] + min(begin, end)..<keyStarts[s] + end
    }

    private func dot(_ a: [Double], _ i: Int, _ b: [Double], _ j: Int) -> Double {
        (0..<width).reduce(0) { $0 + a[i + $1] * b[j + $1] }
    }

    /// Calls `body` with each query head's offset, and the offsets and probabilities of the keys it sees.
    private func forEachHead(
        _ q: [Double], _ k: [Double],
        _ body: (_ query: Int, _ keys: [Int], _ probabilities: [Double], _ lse: Double) -> Void
    ) {
        for s in 0..<queryStarts.count - 1 {
            for i in 0..<queryStarts[s + 1] - queryStarts[s] {
                for head in 0..<queryHeads {
                    let query = ((queryStarts[s] + i) * queryHeads + head) * width
                    let keys = visible(s, i).map { ($0 * keyHeads + head * keyHeads / queryHeads) * width }
                    let scores = keys.map { scale * dot(q, query, k, $0) }
                    let largest = scores.max() ?? 0
                    let sum = scores.reduce(0) { $0 + exp($1 - largest) }
                    body(
                        query, keys, scores.map { exp($0 - largest) / sum },
                        keys.isEmpty ? -.infinity : largest + log(sum))
                }
            }
        }
    }

    func forward(_ q: [Double], _ k: [Double], _ v: [Double]) -> (out: [Double], logSumExp: [Double]) {
        var out = Array(repeating: 0.0, count: q.count)
        var sums = Array(repeating: 0.0, count: q.count / width)
        forEachHead(q, k) { query, keys, probabilities, lse in
            for (key, probability) in zip(keys, probabilities) {
                for x in 0..<width { out[query + x] += probability * v[key + x] }
            }
            sums[query / width] = lse
        }
        return (out, sums)
    }

    func backward(
        _ dout: [Double], _ q: [Double], _ k: [Double], _ v: [Double]
    ) -> (dq: [Double], dk: [Double], dv: [Double]) {
        let out = forward(q, k, v).out
        var (dq, dk, dv) = (q.map { _ in 0.0 }, k.map { _ in 0.0 }, v.map { _ in 0.0 })
        forEachHead(q, k) { query, keys, probabilities, _ in
            let mean = dot(dout, query, out, query)
            for (key, probability) in zip(keys, probabilities) {
                let slope = scale * probability * (dot(dout, query, v, key) - mean)
                for x in 0..<width {
                    dv[key + x] += probability * dout[query + x]
                    dq[query + x] += slope * k[key + x]
                    dk[key + x] += slope * q[query + x]
                }
            }
        }
        return (dq, dk, dv)
    }
}
