import ApusKernels
import ApusTensor
import ApusTestSupport
import CApusKernels
import Testing

// Shape letters: T query tokens, S sequences, Hq query heads, Hk key heads, H head width.

/// One attention call: lengths of queries and keys of each sequence, heads, and mask.
struct AttentionCase: CustomTestStringConvertible {
    var queries: [Int]
    var keys: [Int]?
    var heads: (query: Int, key: Int) = (4, 2)
    var width = 16
    var isCausal = true
    var window = 0
    var hasDocuments = false

    var testDescription: String {
        "\(queries) of \(keys ?? queries) keys, heads \(heads), width \(width), "
            + "\(isCausal ? "causal" : "all"), window \(window)\(hasDocuments ? ", documents" : "")"
    }

    static let all = [
        AttentionCase(queries: [1], heads: (1, 1), width: 1),
        AttentionCase(queries: [3, 17], heads: (2, 2), width: 8),
        AttentionCase(queries: [100, 0, 5], heads: (4, 2), width: 64),
        AttentionCase(queries: [130], heads: (6, 1), width: 20),
        AttentionCase(queries: [40, 70], heads: (4, 4), width: 128),
        AttentionCase(queries: [33, 90], window: 1),
        AttentionCase(queries: [200], window: 70),
        AttentionCase(queries: [65, 64, 63], window: 5, hasDocuments: true),
        AttentionCase(queries: [150], heads: (8, 2), hasDocuments: true),
        AttentionCase(queries: [17, 3, 1], keys: [17, 80, 130]),
        AttentionCase(queries: [20, 30], keys: [50, 7], isCausal: false),
        AttentionCase(queries: [5, 9], keys: [0, 100], isCausal: false),
        AttentionCase(queries: [10], keys: [4]),
    ]
}

/// The tensors of a case, queries and keys as slices of wider rows.
struct AttentionProblem {
    let q: Tensor, k: Tensor, v: Tensor
    let queryStarts: Tensor
    let view: KVView
    let mask: AttentionMask
    let scale: Float
    let reference: AttentionReference

    init(_ example: AttentionCase, _ backend: CPUBackend, _ dtype: DType, seed: UInt64 = 1) throws {
        let keys = example.keys ?? example.queries
        func starts(_ lengths: [Int]) -> [Int] { lengths.reduce(into: [0]) { $0.append($0[$0.count - 1] + $1) } }
        let (queryStarts, keyStarts) = (starts(example.queries), starts(keys))
        let (tokens, keyTokens) = (queryStarts[queryStarts.count - 1], keyStarts[keyStarts.count - 1])
        func heads(_ count: Int, _ heads: Int, _ seed: UInt64) throws -> Tensor {
            try backend.random(count, heads * example.width + 8, dtype: dtype, seed: seed)
                .columns(3..<3 + heads * example.width).reshaped(count, heads, example.width)
        }
        q = try heads(tokens, example.heads.query, seed)
        k = try heads(keyTokens, example.heads.key, seed + 1)
        v = try heads(keyTokens, example.heads.key, seed + 2)
        self.queryStarts = try backend.allocator.integers(queryStarts)
        view = KVView(
            keys: k, values: v, layout: .contiguous(cumulativeLengths: try backend.allocator.integers(keyStarts)))
        // Documents of eleven tokens.
        let firstKey =
            example.hasDocuments ? example.queries.flatMap { length in (0..<length).map { $0 / 11 * 11 } } : nil
        mask = AttentionMask(
            isCausal: example.isCausal, window: example.window,
            firstKey: try firstKey.map { try backend.allocator.integers($0) })
        scale = 1 / Float(example.width).squareRoot()
        reference = AttentionReference(
            queryHeads: example.heads.query, keyHeads: example.heads.key, width: example.width,
            queryStarts: queryStarts,
            keyStarts: keyStarts, isCausal: example.isCausal, window: example.window, firstKey: firstKey,
            scale: Double(scale))
    }

    func forward(_ backend: CPUBackend) throws -> (out: Tensor, logSumExp: Tensor) {
        let out = try backend.empty(q.shape, q.dtype)
        let sums = try backend.empty(Shape(q.shape[0], q.shape[1]), .f32)
        try backend.attention(
            q, cumulativeLengths: queryStarts, kv: view, mask: mask, scale: scale, into: out, logSumExp: sums)
        return (out, sums)
    }
}

/// Checks forward and backward of a case against the definition.
func checkAttention(_ example: AttentionCase, _ backend: CPUBackend, _ dtype: DType) throws {
    let problem = try AttentionProblem(example, backend, dtype)
    let name = "\(example.testDescription), \(dtype)"
    let (q, k, v) = (problem.q.doubles, problem.k.doubles, problem.v.doubles)
    let (out, sums) = try problem.forward(backend)
    let expected = problem.reference.forward(q, k, v)
    expectClose(out, expected.out, name)
    let found = sums.floats()
    let seeing = expected.logSumExp.indices.filter { expected.logSumExp[$0].isFinite }
    expectClose(
        seeing.map { found[$0] }, seeing.map { expected.logSumExp[$0] }, within: 1e-5, "log-sum-exp of \(name)")
    #expect(found.indices.allSatisfy { found[$0].isFinite == expected.logSumExp[$0].isFinite })

    let dout = try backend.allocator.random(problem.q.shape, dtype, seed: 9, rowPadding: 0)
    let gradients = problem.reference.backward(dout.doubles, q, k, v)
    let (heads, keyHeads, width) = (example.heads.query, example.heads.key, example.width)
    // Keys and queries of one call may be slices of one gradient; with other lengths they cannot be.
    let dq = try backend.sentinel(q.count / (heads * width), heads * width + 3, dtype: dtype)
        .columns(2..<2 + heads * width).reshaped(problem.q.shape[0], heads, width)
    let fused = try backend.sentinel(problem.k.shape[0], 2 * keyHeads * width + 1, dtype: dtype)
    let dk = fused.columns(0..<keyHeads * width).reshaped(problem.k.shape[0], keyHeads, width)
    let dv = fused.columns(keyHeads * width..<2 * keyHeads * width).reshaped(problem.k.shape[0], keyHeads, width)
    try backend.attentionBackward(
        dout, q: problem.q, cumulativeLengths: problem.queryStarts, kv: problem.view, mask: problem.mask,
        scale: problem.scale, out: out, logSumExp: sums, dq: dq, dk: dk, dv: dv)
    // With one key of weight 1 the gradients of queries and keys vanish: their size is then that of rounding.
    let isTrivial = gradients.dq.allSatisfy { abs($0) < 1e-9 }
    if !isTrivial {
        expectClose(dq, gradients.dq, "dq of \(name)")
        expectClose(dk, gradients.dk, "dk of \(name)")
    }
    expectClose(dv, gradients.dv, "dv of \(name)")
}

@Suite struct `Attention` {
    let backend = CPUBackend(threadCount: 2)

    @Test(arguments: AttentionCase.all, floatingTypes)
    func `equals its definition, forward and backward`(example: AttentionCase, dtype: DType) throws {
        try checkAttention(example, backend, dtype)
    }

    @Test(arguments: availableLevels)
    func `is right at every instruction set`(level: UInt32) async {
        await #expect(processExitsWith: .success) { [level] in
            apus_cpu_limit(apus_cpu_level(rawValue: level))
            let backend = CPUBackend(threadCount: 2)
            for example in AttentionCase.all where example.width < 100 {
                for dtype in floatingTypes { try checkAttention(example, backend, dtype) }
            }
            try checkPaging(block: 16, .bf16, backend)
        }
    }

    @Test(arguments: [1, 16, 64, 7], floatingTypes)
    func `has the same bits wherever the keys lie`(block: Int, dtype: DType) throws {
        try checkPaging(block: block, dtype, backend)
    }

    @Test(arguments: floatingTypes)
    func `has the same bits for a query alone and in a batch`(dtype: DType) throws {
        let whole = try AttentionProblem(AttentionCase(queries: [150], heads: (4, 2), width: 32), backend, dtype)
        let expected = try whole.forward(backend).out
        for query in [0, 1, 63, 64, 149] {
            let out = try backend.empty(Shape(1, 4, 32), dtype)
            try backend.attention(
                whole.q[query..<query + 1], cumulativeLengths: try backend.allocator.integers([0, 1]),
                kv: KVView(
                    keys: whole.k, values: whole.v,
                    layout: .contiguous(cumulativeLengths: try backend.allocator.integers([0, query + 1]))),
                mask: .causal, scale: whole.scale, into: out, logSumExp: nil)
            expectSameBits(out, expected[query..<query + 1], "\(dtype) query \(query)")
        }
    }

    @Test(arguments: floatingTypes)
    func `does not depend on the number of threads`(dtype: DType) throws {
        try expectSameBitsForAnyThreadCount("attention") { backend in
            let problem = try AttentionProblem(AttentionCase(queries: [90, 20, 130]), backend, dtype)
            let (out, sums) = try problem.forward(backend)
            let (dq, dk, dv) = (
                try backend.empty(problem.q.shape, dtype), try backend.empty(problem.k.shape, dtype),
                try backend.empty(problem.v.shape, dtype)
            )
            try backend.attentionBackward(
                out, q: problem.q, cumulativeLengths: problem.queryStarts, kv: problem.view, mask: problem.mask,
                scale: problem.scale, out: out, logSumExp: sums, dq: dq, dk: dk, dv: dv)
            return [out, sums, dq, dk, dv]
        }
    }
}

/// Keys and values in blocks at random places give the bits of contiguous ones.
func checkPaging(block: Int, _ dtype: DType, _ backend: CPUBackend) throws {
    let example = AttentionCase(queries: [17, 1, 5], keys: [17, 130, 64], heads: (4, 2), width: 32, window: 50)
    let problem = try AttentionProblem(example, backend, dtype)
    let expected = try problem.forward(backend).out
    let lengths = example.keys ?? []
    let perSequence = lengths.map { ($0 + block - 1) / block }
    let most = perSequence.max() ?? 0
    var generator = SeededGenerator(seed: 3)
    var free = Array(0..<perSequence.reduce(0, +) + 4).shuffled(using: &generator)
    let total = free.count
    let keys = try backend.sentinel(total, block, 2, 32, dtype: dtype)
    let values = try backend.sentinel(total, block, 2, 32, dtype: dtype)
    var table = Array(repeating: 0, count: lengths.count * most)
    var token = 0
    for (sequence, length) in lengths.enumerated() {
        for position in 0..<length {
            if position % block == 0 { table[sequence * most + position / block] = free.removeLast() }
            let row = table[sequence * most + position / block] * block + position % block
            for (pool, source) in [(keys, problem.k), (values, problem.v)] {
                let target = pool.reshaped(total * block, 2, 32)
                try backend.copy(source[token..<token + 1], into: target[row..<row + 1])
            }
            token += 1
        }
    }
    let out = try backend.empty(problem.q.shape, dtype)
    try backend.attention(
        problem.q, cumulativeLengths: problem.queryStarts,
        kv: KVView(
            keys: keys, values: values,
            layout: .blocks(
                table: try backend.allocator.integers(table, Shape(lengths.count, most)),
                lengths: try backend.allocator.integers(lengths))),
        mask: problem.mask, scale: problem.scale, into: out, logSumExp: nil)
    expectSameBits(out, expected, "\(dtype) in blocks of \(block)")
}
