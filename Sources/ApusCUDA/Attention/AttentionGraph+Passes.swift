import CApusDrivers

// Shape letters: S sequences, Hq query heads, Hk key heads, Lq and Lk tokens of a sequence, H head width.

/// Which half of attention a plan computes.
enum AttentionPass: Hashable, Sendable {
    case forward
    /// `isDeterministic`: every sum in one order, at the price of (S, Hq, Lq, Lk) `bf16` of workspace.
    case backward(isDeterministic: Bool)
}

extension AttentionGraph {
    /// The graph of one pass over a shape.
    static func of(_ pass: AttentionPass, _ shape: FusedShape, _ library: AttentionLibrary) throws(CUDAError)
        -> GraphDescriptor
    {
        var graph = AttentionGraph(library)
        switch pass {
        case .forward: try graph.addForward(shape)
        case .backward(let isDeterministic): try graph.addBackward(shape, isDeterministic: isDeterministic)
        }
        return try graph.finished()
    }

    /// The numbers that the graph of a pass takes.
    static func numbers(_ pass: AttentionPass, _ shape: FusedShape) -> [AttentionRole] {
        switch pass {
        case .forward: shape.isCausal ? [.scale, .unseen] : [.scale]
        case .backward: shape.isCausal || shape.needsLengths ? [.scale, .one, .unseen] : [.scale, .one]
        }
    }

    /// 1 scores, 2 mask, 3 softmax and its log-sum-exp, 4 the mixture of the values.
    private mutating func addForward(_ shape: FusedShape) throws(CUDAError) {
        let q = try tensor(.queries, shape.queryRows(shape.queryStride), APUS_DNN_BF16)
        let k = try tensor(.keys, shape.keyRows(shape.keyStride).transposed, APUS_DNN_BF16)
        let v = try tensor(.values, shape.keyRows(shape.valueStride), APUS_DNN_BF16)
        var scores = try product(q, k, into: try intermediate(shape.scores))
        scores = try pointwise(APUS_DNN_MULTIPLY, scores, try scalar(.scale))
        if shape.isCausal { scores = try causal(scores, unseen: try scalar(.unseen)) }
        let largest = try reduce(APUS_DNN_REDUCE_MAX, scores, into: try intermediate(shape.column))
        let powers = try pointwise(APUS_DNN_EXP, try pointwise(APUS_DNN_SUBTRACT, scores, largest))
        let sum = try reduce(APUS_DNN_REDUCE_ADD, powers, into: try intermediate(shape.column))
        _ = try pointwise(
            APUS_DNN_ADD, largest, try pointwise(APUS_DNN_LOG, sum),
            into: try tensor(.logSumExp, shape.logSumExpColumn, APUS_DNN_F32))
        let weights = try pointwise(APUS_DNN_DIVIDE, powers, sum, as: APUS_DNN_BF16)
        _ = try product(
            weights, v, into: try tensor(.out, shape.queryRows(shape.outStride), APUS_DNN_BF16))
    }

    /// FlashAttention-2 (Dao 2023), section 3.1: 1 delta, 2 softmax again from its log-sum-exp, 3 gradient of the values,
    /// 4 of the scores, 5 of keys and queries.
    private mutating func addBackward(_ shape: FusedShape, isDeterministic: Bool) throws(CUDAError) {
        guard let strides = shape.gradients else { preconditionFailure("a shape without gradients") }
        let q = try tensor(.queries, shape.queryRows(shape.queryStride), APUS_DNN_BF16)
        let k = try tensor(.keys, shape.keyRows(shape.keyStride).transposed, APUS_DNN_BF16)
        let v = try tensor(.values, shape.keyRows(shape.valueStride).transposed, APUS_DNN_BF16)
        let out = try tensor(.out, shape.queryRows(shape.outStride), APUS_DNN_BF16)
        let dout = try tensor(.outGradient, shape.queryRows(strides.out), APUS_DNN_BF16)
        let dq = try tensor(.queryGradient, shape.queryRows(strides.query), APUS_DNN_BF16)
        let (scale, unseen) = (try scalar(.scale), try scalar(.unseen))
        var (queries, keys): (Node?, Node?)
        if shape.needsLengths {
            queries = try tensor(.queryLengths, shape.lengths, APUS_DNN_I32)
            keys = try tensor(.keyLengths, shape.lengths, APUS_DNN_I32)
        }

        let mixed = try pointwise(
            APUS_DNN_MULTIPLY, dout, out, into: try intermediate(shape.queryRows(shape.queryHeads * shape.width)))
        let delta = try pointwise(
            APUS_DNN_MULTIPLY, try reduce(APUS_DNN_REDUCE_ADD, mixed, into: try intermediate(shape.column)),
            try scalar(.one), into: try tensor(.delta, shape.column, APUS_DNN_F32))

        var scores = try product(q, k, into: try intermediate(shape.scores), rows: queries, columns: keys)
        scores = try pointwise(APUS_DNN_MULTIPLY, scores, scale)
        if let queries, let keys { scores = try within(scores, queries, keys, unseen: unseen) }
        scores = try pointwise(
            APUS_DNN_SUBTRACT, scores, try tensor(.logSumExp, shape.logSumExpColumn, APUS_DNN_F32))
        if shape.isCausal { scores = try causal(scores, unseen: unseen) }
        let weights = try pointwise(APUS_DNN_EXP, scores)

        let dv = try tensor(.valueGradient, shape.keyRows(strides.value), APUS_DNN_BF16)
        try addKeyGradient(
            shape, try view(weights, as: shape.scoresByKey), dout, into: dv, queries: queries, keys: keys)

        var slopes = try product(dout, v, into: try intermediate(shape.scores), rows: queries, columns: keys)
        slopes = try pointwise(APUS_DNN_SUBTRACT, slopes, delta)
        slopes = try pointwise(APUS_DNN_MULTIPLY, slopes, weights)
        slopes = try pointwise(APUS_DNN_MULTIPLY, slopes, scale)

        let dk = try tensor(.keyGradient, shape.keyRows(strides.key), APUS_DNN_BF16)
        try addKeyGradient(shape, try view(slopes, as: shape.scoresByKey), q, into: dk, queries: queries, keys: keys)
        let rows = try view(k, as: k.layout.transposed)
        if isDeterministic {
            _ = try product(slopes, rows, into: dq, rows: queries, depth: keys)
        } else {
            let sum = try tensor(.queryAccumulator, shape.denseQueryRows, APUS_DNN_F32)
            _ = try pointwise(
                APUS_DNN_IDENTITY, try product(slopes, rows, into: sum, rows: queries, depth: keys), into: dq)
        }
    }

    /// The gradient of keys or values, summed over the query heads that share a key head.
    private mutating func addKeyGradient(
        _ shape: FusedShape, _ byKey: Node, _ rows: Node, into result: Node, queries: Node?, keys: Node?
    ) throws(CUDAError) {
        guard shape.queryHeads != shape.keyHeads else {
            _ = try product(byKey, rows, into: result, rows: keys, depth: queries)
            return
        }
        let ofEachHead = try product(
            byKey, rows, into: try intermediate(shape.keyRowsOfEachHead, APUS_DNN_BF16), rows: keys, depth: queries)
        _ = try reduce(APUS_DNN_REDUCE_ADD, ofEachHead, into: result)
    }

    /// Only scores whose key is not behind their query.
    private mutating func causal(_ scores: Node, unseen: Node) throws(CUDAError) -> Node {
        let row = try pointwise(APUS_DNN_INDEX, scores, axis: 2, as: APUS_DNN_I32)
        let column = try pointwise(APUS_DNN_INDEX, scores, axis: 3, as: APUS_DNN_I32)
        let isSeen = try pointwise(APUS_DNN_AT_LEAST, row, column, in: APUS_DNN_BOOLEAN, as: APUS_DNN_BOOLEAN)
        return try pointwise(APUS_DNN_SELECT, scores, unseen, where: isSeen)
    }

    /// Only scores of the tokens that there are.
    private mutating func within(
        _ scores: Node, _ queries: Node, _ keys: Node, unseen: Node
    ) throws(CUDAError) -> Node {
        let row = try pointwise(APUS_DNN_INDEX, scores, axis: 2, in: APUS_DNN_I32, as: APUS_DNN_I32)
        let column = try pointwise(APUS_DNN_INDEX, scores, axis: 3, in: APUS_DNN_I32, as: APUS_DNN_I32)
        let isRow = try pointwise(APUS_DNN_LESS, row, queries, in: APUS_DNN_BOOLEAN, as: APUS_DNN_BOOLEAN)
        let isColumn = try pointwise(APUS_DNN_LESS, column, keys, in: APUS_DNN_BOOLEAN, as: APUS_DNN_BOOLEAN)
        let isThere = try pointwise(APUS_DNN_AND, isRow, isColumn, in: APUS_DNN_BOOLEAN, as: APUS_DNN_BOOLEAN)
        return try pointwise(APUS_DNN_SELECT, scores, unseen, where: isThere)
    }
}
