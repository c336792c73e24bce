import ApusKernels
import ApusTensor

// Products and rows.

extension FaultyBackend {
    func argMax(_ logits: Tensor, into choices: Tensor) throws {
        try inner.argMax(logits, into: choices)
        done(.argMax, choices)
    }

    func beginDecodeStep(_ state: DecodeState, blockSize: Int) throws {
        try inner.beginDecodeStep(state, blockSize: blockSize)
        done(.beginDecodeStep, state.tokens, state.positions, state.places, state.lengths)
    }

    func storeKeys(
        _ keys: Tensor, _ values: Tensor, places: Tensor, keptKeys: Tensor, keptValues: Tensor
    ) throws {
        try inner.storeKeys(keys, values, places: places, keptKeys: keptKeys, keptValues: keptValues)
        done(.storeKeys, keptKeys, keptValues)
    }

    func matMul(_ a: Matrix, _ b: Matrix, into c: Tensor, alpha: Float, beta: Float) throws {
        try inner.matMul(a, b, into: c, alpha: alpha, beta: beta)
        done(.matMul, c)
    }

    func groupedMatMul(
        _ x: Tensor, rows: Tensor?, weights: Tensor, transposed: Bool, offsets: Tensor, into out: Tensor
    ) throws {
        try inner.groupedMatMul(x, rows: rows, weights: weights, transposed: transposed, offsets: offsets, into: out)
        done(.groupedMatMul, out)
    }

    func groupedWeightGradient(
        _ dy: Tensor, _ x: Tensor, rows: Tensor?, offsets: Tensor, into gradient: Tensor, adds: Bool
    ) throws {
        try inner.groupedWeightGradient(dy, x, rows: rows, offsets: offsets, into: gradient, adds: adds)
        done(.groupedWeightGradient, gradient)
    }

    func fusesGatedExperts(_ dtype: DType, experts: Int, width: Int, hidden: Int) -> Bool {
        inner.fusesGatedExperts(dtype, experts: experts, width: width, hidden: hidden)
    }

    func gatedExperts(
        _ x: Tensor, rows: Tensor?, weights: Tensor, offsets: Tensor, rowWeights: Tensor?, pre: Tensor?,
        into hidden: Tensor
    ) throws {
        try inner.gatedExperts(
            x, rows: rows, weights: weights, offsets: offsets, rowWeights: rowWeights, pre: pre, into: hidden)
        done(.gatedExperts, pre, hidden)
    }

    func gatedExpertsBackward(
        _ dy: Tensor, weights: Tensor, offsets: Tensor, rowWeights: Tensor?, pre: Tensor, hidden: Tensor,
        weightGradients: Tensor?
    ) throws {
        try inner.gatedExpertsBackward(
            dy, weights: weights, offsets: offsets, rowWeights: rowWeights, pre: pre, hidden: hidden,
            weightGradients: weightGradients)
        done(.gatedExpertsBackward, pre, hidden, weightGradients)
    }

    func gatedExpertsInputBackward(
        _ dpre: Tensor, x: Tensor, slotToRow: Tensor, choices: Int, weights: Tensor, offsets: Tensor, rows: Tensor,
        gradient: Tensor, adds: Bool, into dx: Tensor, addsInput: Bool
    ) throws {
        try inner.gatedExpertsInputBackward(
            dpre, x: x, slotToRow: slotToRow, choices: choices, weights: weights, offsets: offsets, rows: rows,
            gradient: gradient, adds: adds, into: dx, addsInput: addsInput)
        done(.gatedExpertsInputBackward, gradient, dx)
    }

    func scatterRows(_ x: Tensor, slotToRow: Tensor, choices: Int, into rows: Tensor) throws {
        try inner.scatterRows(x, slotToRow: slotToRow, choices: choices, into: rows)
        done(.scatterRows, rows)
    }

    func gatherRows(_ x: Tensor, index: Tensor, scale: Tensor?, into y: Tensor) throws {
        try inner.gatherRows(x, index: index, scale: scale, into: y)
        done(.gatherRows, y)
    }

    func combineRows(
        _ rows: Tensor, slotToRow: Tensor, weights: Tensor?, choices: Int, into y: Tensor, adds: Bool
    ) throws {
        try inner.combineRows(rows, slotToRow: slotToRow, weights: weights, choices: choices, into: y, adds: adds)
        done(.combineRows, y)
    }

    func combineRowsBackward(
        _ dy: Tensor, rows: Tensor, slotToRow: Tensor, weights: Tensor?, choices: Int, drows: Tensor?, dweights: Tensor?
    ) throws {
        try inner.combineRowsBackward(
            dy, rows: rows, slotToRow: slotToRow, weights: weights, choices: choices, drows: drows, dweights: dweights)
        done(.combineRowsBackward, drows, dweights)
    }

    func mixRows(_ a: Tensor, _ b: Tensor, weights: Tensor, into y: Tensor) throws {
        try inner.mixRows(a, b, weights: weights, into: y)
        done(.mixRows, y)
    }

    func mixRowsBackward(
        _ dy: Tensor, _ a: Tensor, _ b: Tensor, weights: Tensor, da: Tensor, db: Tensor, dweights: Tensor
    ) throws {
        try inner.mixRowsBackward(dy, a, b, weights: weights, da: da, db: db, dweights: dweights)
        done(.mixRowsBackward, da, db, dweights)
    }

    func embed(_ tokens: Tensor, table: Tensor, into y: Tensor) throws {
        try inner.embed(tokens, table: table, into: y)
        done(.embed, y)
    }

    func embedBackward(_ dy: Tensor, tokens: Tensor, into gradient: Tensor) throws {
        try inner.embedBackward(dy, tokens: tokens, into: gradient)
        done(.embedBackward, gradient)
    }
}
