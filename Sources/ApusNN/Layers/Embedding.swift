import ApusKernels
public import ApusTensor

// Shape letters: T tokens, V vocabulary, D model width.

/// Rows of a table by token id, plus, where there are learned positions, rows of a second table by position.
public struct Embedding {
    /// (V, D).
    public let table: any Weight
    /// (positions, D), or `nil` when positions enter in attention.
    public let positionTable: (any Weight)?

    /// An embedding over the given tables.
    public init(table: any Weight, positionTable: (any Weight)? = nil) {
        self.table = table
        self.positionTable = positionTable
    }

    /// Token ids (T) `i32` to (T, D). Ids are checked where they enter the program, not here.
    public func callAsFunction(_ tokens: Tensor, _ context: ForwardContext) throws -> Variable {
        let backend = context.tape.backend
        let positions = context.layout.positions
        let y = try table.withWeights(on: backend.stream) { weights in
            let y = try backend.empty(Shape(tokens.count, weights.shape[1]), weights.dtype)
            try backend.embed(tokens, table: weights, into: y)
            return y
        }
        if let positionTable {
            try positionTable.withWeights(on: backend.stream) { weights in
                let offsets = try backend.empty(y.shape, y.dtype, .workspace)
                try backend.embed(positions, table: weights, into: offsets)
                try backend.add(y, offsets, into: y)
            }
        }
        return context.tape.record("embedding", inputs: [], output: y) { [table, positionTable] flow in
            guard let dy = flow.output() else { return }
            if let gradient = try table.gradient() {
                try flow.backend.embedBackward(dy, tokens: tokens, into: gradient)
            }
            if let gradient = try positionTable?.gradient() {
                try flow.backend.embedBackward(dy, tokens: positions, into: gradient)
            }
        }
    }
}
