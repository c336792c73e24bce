public import ApusCollectives
import ApusKernels
public import ApusNN
public import ApusTensor

// Shape letters: T tokens, V vocabulary, D model width, N tensor-parallel ranks.

/// An embedding whose rows are divided over the ranks: each looks up the tokens that it has, leaves zeros for the
/// others, and the sum is the embedding. Learned positions are whole on every rank and added after the sum.
public struct VocabularyParallelEmbedding: EmbeddingLayer {
    private let local: Embedding
    private let rows: Range<Int>
    private let boundary: DividedLayerBoundary

    /// A divided embedding of which `local` has the rows `rows` of the table.
    public init(_ local: Embedding, rows: Range<Int>, group: any Collective, dividesTokens: Bool) {
        precondition(local.table.weightShape[0] == rows.count)
        self.local = local
        self.rows = rows
        boundary = DividedLayerBoundary(group: group, dividesTokens: dividesTokens, layer: nil)
    }

    public var table: any Weight { local.table }

    /// Token ids (T) `i32` to (T, D), or to this rank's tokens of it. Reads the ids on the host: on a GPU that waits.
    ///
    /// - Throws: ``PartitionError/tokens(count:ranks:)``, and what the exchange throws.
    public func callAsFunction(_ tokens: Tensor, _ context: ForwardContext) throws -> Variable {
        let tape = context.tape
        let y = try boundary.leave(ownRows(of: tokens, on: tape), on: tape)
        guard let positions = local.positionTable else { return y }
        var places = context.layout.positions
        if boundary.dividesTokens {
            let first = boundary.group.rank * y.shape[0]
            places = places[first..<first + y.shape[0]]
        }
        return try add(positions, at: places, to: y, on: tape)
    }

    /// The looked-up rows of the tokens that are here, and zeros.
    private func ownRows(of tokens: Tensor, on tape: Tape) throws -> Variable {
        let backend = tape.backend
        let ids = try backend.array(tokens, of: Int32.self).map { id in
            rows.contains(Int(id)) ? id - Int32(rows.lowerBound) : -1
        }
        let index = try backend.tensor(ids, Shape(ids.count))
        let y = try table.withWeights(on: backend.stream) { weights in
            let y = try backend.empty(Shape(ids.count, weights.shape[1]), weights.dtype)
            try backend.gatherRows(weights, index: index, scale: nil, into: y)
            return y
        }
        return tape.record("embedding", inputs: [], output: y) { [table] flow in
            guard let dy = flow.output(), let gradient = try table.gradient() else { return }
            try flow.backend.embedBackward(dy, tokens: index, into: gradient)
        }
    }

    private func add(_ table: any Weight, at places: Tensor, to y: Variable, on tape: Tape) throws -> Variable {
        let backend = tape.backend
        let sum = try backend.empty(y.shape, y.dtype)
        try table.withWeights(on: backend.stream) { try backend.embed(places, table: $0, into: sum) }
        try backend.add(sum, y.tensor, into: sum)
        return tape.record("positions", inputs: [y], output: sum) { flow in
            guard let dy = flow.takeOutput() else { return }
            if let gradient = try table.gradient() {
                try flow.backend.embedBackward(dy, tokens: places, into: gradient)
            }
            try flow.accumulate(dy, into: y)
        }
    }
}
