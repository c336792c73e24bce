public import ApusKernels
import ApusNN
import ApusTensor

// Shape letters: T tokens, D model width, K choices per token.

/// Cutting a routed batch into ranges of tokens, and joining the results.
enum Chunking {
    /// A range of tokens with its part of the routing.
    struct Piece {
        let tokens: Range<Int>
        let x: Variable
        let decision: RoutingDecision
        let weights: Variable
    }

    /// Cuts into at most `count` pieces of nearly equal length; `nil` when there is nothing to cut, or when rows are
    /// padded to capacities, which belong to whole routing groups.
    ///
    /// - Parameter mayBeEmpty: Whether there are `count` pieces however few the tokens are: ranks that exchange rows
    ///   make the same number of exchanges.
    static func split(
        _ x: Variable, _ routing: Routing, into count: Int, mayBeEmpty: Bool, on tape: Tape
    ) throws -> [Piece]? {
        let tokens = x.shape[0]
        let pieces = mayBeEmpty ? count : min(count, tokens)
        guard pieces > 1, !routing.decision.isPadded else { return nil }
        return try (0..<pieces).map { index in
            let range = tokens * index / pieces..<tokens * (index + 1) / pieces
            return Piece(
                tokens: range, x: try slice(x, range, on: tape),
                decision: try routing.decision.restricted(to: range, backend: tape.backend),
                weights: try slice(routing.weights, range, on: tape))
        }
    }

    /// Rows `range` of a variable; the adjoint adds into those rows.
    static func slice(_ x: Variable, _ range: Range<Int>, on tape: Tape) throws -> Variable {
        tape.record("chunk", inputs: [x], output: x.tensor[range]) { flow in
            guard let gradient = flow.output() else { return }
            try flow.accumulate(into: x) { dx, adds in
                if !adds { try flow.backend.fill(dx, with: 0) }
                try flow.backend.add(dx[range], gradient, into: dx[range])
            }
        }
    }

    /// Pieces (T_i, D) one after the other.
    static func join(_ pieces: [Variable], on tape: Tape) throws -> Variable {
        let tokens = pieces.reduce(0) { $0 + $1.shape[0] }
        let whole = try tape.backend.empty(Shape(tokens, pieces[0].shape[1]), pieces[0].dtype)
        var begin = 0
        var ranges: [Range<Int>] = []
        for piece in pieces {
            ranges.append(begin..<begin + piece.shape[0])
            try tape.backend.copy(piece.tensor, into: whole[begin..<begin + piece.shape[0]])
            begin += piece.shape[0]
        }
        return tape.record("join", inputs: pieces, output: whole) { flow in
            guard let gradient = flow.output() else { return }
            for (piece, range) in zip(pieces, ranges) {
                // A copy, for the slice shares its storage with its neighbours.
                try flow.accumulate(into: piece) { dx, adds in
                    if adds {
                        try flow.backend.add(dx, gradient[range], into: dx)
                    } else {
                        try flow.backend.copy(gradient[range], into: dx)
                    }
                }
            }
        }
    }
}

extension RoutingDecision {
    /// The part of an unpadded decision that concerns the tokens of `range`.
    ///
    /// - Throws: ``TensorError``
    public func restricted(to range: Range<Int>, backend: any Backend) throws -> RoutingDecision {
        precondition(!isPadded)
        return RoutingDecision(
            ids: ids[range], kept: kept[range], experts: experts, capacities: capacities, isPadded: false,
            permutation: try backend.sortByExpert(kept[range], experts: experts))
    }
}
