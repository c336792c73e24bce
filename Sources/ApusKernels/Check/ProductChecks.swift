import ApusTensor

// Shape letters: M rows, N columns, K contracted, R routed rows, E experts.

extension OpCheck {
    private static let sizes = [(1, 1, 1), (5, 7, 3), (33, 65, 129), (70, 48, 96)]

    static let product: [[OpCheck]] = [
        make("matmul x w^T") { probe in
            for (m, n, k) in sizes {
                let (a, b) = (try probe.draw(m, k), try probe.draw(n, k))
                let c = try probe.empty(m, n)
                try probe.backend.matMul(a.tensor.matrix, b.tensor.transpose, into: c)
                probe.expect(c, definition(m, n, k, { a.values[$0 * k + $1] }, { b.values[$1 * k + $0] }))
            }
        },
        make("matmul dy w") { probe in
            for (m, n, k) in sizes {
                let (a, b) = (try probe.draw(m, k), try probe.draw(k, n))
                let c = try probe.empty(m, n)
                try probe.backend.matMul(a.tensor.matrix, b.tensor.matrix, into: c)
                probe.expect(c, definition(m, n, k, { a.values[$0 * k + $1] }, { b.values[$0 * n + $1] }))
            }
        },
        make("matmul dy^T x, accumulated") { probe in
            for (m, n, k) in sizes {
                let (a, b) = (try probe.draw(k, m), try probe.draw(k, n))
                let c = try probe.draw(m, n, dtype: .f32)
                try probe.backend.matMul(a.tensor.transpose, b.tensor.matrix, into: c.tensor, adds: true)
                let expected = definition(m, n, k, { a.values[$1 * m + $0] }, { b.values[$0 * n + $1] })
                probe.expect(c.tensor, zip(expected, c.values).map { $0 + $1 })
            }
        },
        make("matmul of an f32 and a bf16 matrix", [.f32]) { probe in
            // The products of a router, as large as those for which a device may take another way.
            let (m, n, k) = (512, 128, 2048)
            let (x, w) = (try probe.draw(m, k, dtype: .bf16), try probe.draw(n, k))
            let logits = try probe.empty(m, n)
            try probe.backend.matMul(x.tensor.matrix, w.tensor.transpose, into: logits)
            probe.expect(logits, definition(m, n, k, { x.values[$0 * k + $1] }, { w.values[$1 * k + $0] }))
            let dlogits = try probe.draw(k, n)
            let tokens = try probe.draw(k, m, dtype: .bf16)
            let old = try probe.draw(n, m)
            try probe.backend.matMul(dlogits.tensor.transpose, tokens.tensor.matrix, into: old.tensor, adds: true)
            let gradient = definition(n, m, k, { dlogits.values[$1 * n + $0] }, { tokens.values[$0 * m + $1] })
            probe.expect(old.tensor, zip(old.values, gradient).map(+))
        },
        make("matmul of f32 matrices into bf16", [.bf16]) { probe in
            let (m, n, k) = (1024, 1024, 128)
            let (dlogits, w) = (try probe.draw(m, k, dtype: .f32), try probe.draw(k, n, dtype: .f32))
            let dx = try probe.draw(m, n)
            try probe.backend.matMul(dlogits.tensor.matrix, w.tensor.matrix, into: dx.tensor, adds: true)
            let product = definition(m, n, k, { dlogits.values[$0 * k + $1] }, { w.values[$0 * n + $1] })
            probe.expect(dx.tensor, zip(dx.values, product).map(+))
        },
        make("matmul with bias") { probe in
            // An odd place of the bias too, where a device may have to add it in another way.
            for ((m, n, k), skipped) in zip(sizes, [0, 0, 1, 0]) {
                let (a, b) = (try probe.draw(m, k), try probe.draw(n, k))
                let bias = try probe.draw(n + skipped)
                let c = try probe.empty(m, n)
                try probe.backend.matMul(
                    a.tensor.matrix, b.tensor.transpose, bias: bias.tensor[skipped..<n + skipped], into: c)
                let product = definition(m, n, k, { a.values[$0 * k + $1] }, { b.values[$1 * k + $0] })
                probe.expect(c, product.enumerated().map { $1 + bias.values[skipped + $0 % n] })
            }
        },
        make("matmul of picked rows") { probe in
            let (m, n, k) = (37, 40, 24)
            let (a, b) = (try probe.draw(20, k), try probe.draw(n, k))
            let index = (0..<m).map { _ in probe.integer(below: 20) }
            let c = try probe.empty(m, n)
            try probe.backend.matMul(
                Matrix(a.tensor, rows: probe.put(index, m)), b.tensor.transpose, into: c)
            probe.expect(c, definition(m, n, k, { a.values[index[$0] * k + $1] }, { b.values[$1 * k + $0] }))
        },
    ]

    private static let counts = [[3, 0, 40, 1], [0, 0, 1], [17], [150, 0, 9]]
    /// Odd extents, and extents that whole vectors and tiles take.
    private static let extents = [(33, 48), (136, 72)]

    private static var pairs: [([Int], (Int, Int))] { counts.flatMap { count in extents.map { (count, $0) } } }

    static let grouped: [[OpCheck]] = [
        make("grouped matmul x w^T") { probe in
            for (count, (n, k)) in pairs {
                let group = Groups(count)
                let x = try probe.draw(group.rows + 2, k)
                let index = (0..<group.rows).map { _ in probe.integer(below: group.rows + 2) }
                let w = try probe.draw(count.count, n, k)
                let out = try probe.empty(group.rows, n)
                try probe.backend.groupedMatMul(
                    x.tensor, rows: probe.put(index, group.rows), weights: w.tensor, transposed: true,
                    offsets: probe.put(group.offsets, count.count + 1), into: out)
                probe.expect(
                    out, group.expected(n, k, { x.values[index[$0] * k + $1] }, { w.values[($0 * n + $2) * k + $1] }))
            }
        },
        make("grouped matmul dy w") { probe in
            for (count, (k, n)) in pairs {
                let group = Groups(count)
                let x = try probe.draw(group.rows, k)
                let w = try probe.draw(count.count, k, n)
                let out = try probe.empty(group.rows, n)
                try probe.backend.groupedMatMul(
                    x.tensor, rows: nil, weights: w.tensor, transposed: false,
                    offsets: probe.put(group.offsets, count.count + 1), into: out)
                probe.expect(
                    out, group.expected(n, k, { x.values[$0 * k + $1] }, { w.values[($0 * k + $1) * n + $2] }))
            }
        },
        make("grouped weight gradient") { probe in
            for (count, (n, k)) in pairs {
                let group = Groups(count)
                let (dy, x) = (try probe.draw(group.rows, n), try probe.draw(group.rows + 2, k))
                let old = try probe.draw(count.count, n, k)
                let offsets = try probe.put(group.offsets, count.count + 1)
                let picked = (0..<group.rows).map { _ in probe.integer(below: group.rows + 2) }
                for isPicked in [false, true] {
                    let product = group.weightGradient(
                        n, k, { dy.values[$0 * n + $1] }, { x.values[(isPicked ? picked[$0] : $0) * k + $1] })
                    let rows = isPicked ? try probe.put(picked, group.rows) : nil
                    for (type, adds) in probe.gradientTypes.flatMap({ [($0, true), ($0, false)] }) {
                        let start = adds ? old.values : old.values.map { _ in Double.nan }
                        let gradient = try probe.put(start, old.tensor.shape, type).tensor
                        try probe.backend.groupedWeightGradient(
                            dy.tensor, isPicked ? x.tensor : x.tensor[0..<group.rows], rows: rows, offsets: offsets,
                            into: gradient, adds: adds)
                        probe.expect(gradient, adds ? zip(old.values, product).map(+) : product)
                    }
                }
            }
        },
    ]

    /// (M, N) of `a(m, k) b(k, n)`.
    private static func definition(
        _ m: Int, _ n: Int, _ k: Int, _ a: (Int, Int) -> Double, _ b: (Int, Int) -> Double
    ) -> [Double] {
        (0..<m * n).map { place in (0..<k).reduce(0) { $0 + a(place / n, $1) * b($1, place % n) } }
    }
}

/// Rows in groups, one for each expert.
struct Groups {
    let offsets: [Int]
    let expertOfRow: [Int]

    init(_ counts: [Int]) {
        offsets = counts.reduce(into: [0]) { $0.append($0[$0.count - 1] + $1) }
        expertOfRow = counts.enumerated().flatMap { Array(repeating: $0.offset, count: $0.element) }
    }

    var rows: Int { expertOfRow.count }

    /// (R, N) of `x(row, k) w(expert, k, n)`.
    func expected(_ n: Int, _ k: Int, _ x: (Int, Int) -> Double, _ w: (Int, Int, Int) -> Double) -> [Double] {
        (0..<rows * n).map { place in
            (0..<k).reduce(0) { $0 + x(place / n, $1) * w(expertOfRow[place / n], $1, place % n) }
        }
    }

    /// (E, N, K) of the sums of `dy(row, n) x(row, k)` over each expert's rows.
    func weightGradient(_ n: Int, _ k: Int, _ dy: (Int, Int) -> Double, _ x: (Int, Int) -> Double) -> [Double] {
        var result = Array(repeating: 0.0, count: (offsets.count - 1) * n * k)
        for (row, expert) in expertOfRow.enumerated() {
            for i in 0..<n {
                for j in 0..<k { result[(expert * n + i) * k + j] += dy(row, i) * x(row, j) }
            }
        }
        return result
    }
}
