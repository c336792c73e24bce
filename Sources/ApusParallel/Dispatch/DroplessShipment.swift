import ApusCollectives
import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor

// Shape letters: T tokens, D model width, E experts, K choices per token, R routed rows, P ranks of a tensor group.

/// Rows without padding, as many as an expert gets.
///
/// Ranks of a tensor group hold the same tokens. Where duplicates are dropped each keeps a range of *tokens*: rows,
/// exchanges, and the weighted sum are then divided by P, and what is gathered in the end are T tokens and not K T rows.
struct DroplessShipment: RowShipment {
    let counts: [[Int]]
    let announcedRows: Int? = nil
    private let decision: RoutingDecision
    private let tokenCount: Int
    private let part: PartOfGroup?

    /// - Parameter announcesAllParts: Whether receivers gather the parts of all ranks of the tensor group, and must know
    ///   their sizes: every rank can count them, for it holds the whole decision.
    init(_ decision: RoutingDecision, part: PartOfGroup?, announcesAllParts: Bool, backend: any Backend) throws {
        self.part = part
        tokenCount = decision.tokenCount
        guard let part else {
            self.decision = decision
            counts = [try backend.counts(of: decision)]
            return
        }
        let ranges = RowParts(rows: tokenCount, parts: part.collective.size)
        let own = try decision.restricted(to: ranges[part.collective.rank], backend: backend)
        self.decision = own
        guard announcesAllParts else {
            counts = [try backend.counts(of: own)]
            return
        }
        counts = try (0..<ranges.count).map {
            try backend.counts(
                of: $0 == part.collective.rank ? own : decision.restricted(to: ranges[$0], backend: backend))
        }
    }

    /// Rows that this rank sends.
    private var rowCount: Int {
        let index = part.map { $0.collective.rank } ?? 0
        return counts[counts.count == 1 ? 0 : index].reduce(0, +)
    }

    func rows(of x: Variable, on tape: Tape) throws -> Variable {
        let tokens = try part.map { try tape.ownPart(x, over: $0.collective, layer: $0.layer) } ?? x
        let permutation = decision.permutation
        let choices = decision.choices
        let rows = try tape.backend.empty(Shape(rowCount, x.shape[1]), x.dtype)
        try tape.backend.gatherRows(tokens.tensor, index: permutation.rowToToken, scale: nil, into: rows)
        return tape.record("dispatch", inputs: [tokens], output: rows) { flow in
            guard let gradient = flow.output() else { return }
            try flow.accumulate(into: tokens) { dx, adds in
                try flow.backend.combineRows(
                    gradient, slotToRow: permutation.slotToRow, weights: nil, choices: choices, into: dx, adds: adds)
            }
        }
    }

    func numbers(_ numbers: Tensor, on tape: Tape) throws -> Variable {
        let all = Variable.constant(numbers)
        let own = try part.map { try tape.ownPart(all, over: $0.collective, layer: $0.layer) } ?? all
        return .constant(try decision.rowNumbers(own.tensor, rows: rowCount, tape.backend))
    }

    func combine(_ results: Variable, weights: Variable, base: Variable?, on tape: Tape) throws -> Variable {
        guard let part else {
            return try LocalDispatcher().combine(results, weights: weights, decision, base: base, on: tape).finish()
        }
        let ownWeights = try tape.ownPart(weights, over: part.collective, layer: part.layer)
        let own = try LocalDispatcher().combine(results, weights: ownWeights, decision, base: nil, on: tape).finish()
        let whole = try tape.wholeOfParts(own, rows: tokenCount, over: part.collective, layer: part.layer)
        return try base.map { try tape.add($0, whole) } ?? whole
    }
}

extension Backend {
    /// Rows of each expert; waits for the device.
    fileprivate func counts(of decision: RoutingDecision) throws -> [Int] {
        try array(decision.permutation.counts, of: Int32.self).map(Int.init)
    }
}
