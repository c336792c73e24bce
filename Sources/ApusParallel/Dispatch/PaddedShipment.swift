import ApusCollectives
import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor

// Shape letters: D model width, E experts, C capacity, P ranks of a tensor group.

/// Rows padded to the capacities, C of each expert: every rank knows what all send when it knows their capacities.
///
/// Where duplicates are dropped each rank of a tensor group keeps a range of every expert's C places (DeepSpeed-TED
/// section 5.1), so that all parts stay equal; results are gathered as rows, and every rank combines.
struct PaddedShipment: RowShipment {
    let counts: [[Int]]
    var announcedRows: Int? { counts[0][0] }
    private let decision: RoutingDecision
    private let part: PartOfGroup?
    /// [expert][place] to [part][expert][place in the part].
    private let division: RowOrder?

    init(_ decision: RoutingDecision, part: PartOfGroup?, announcesAllParts: Bool, backend: any Backend) throws {
        self.decision = decision
        self.part = part
        let (experts, capacity) = (decision.experts, decision.capacities.reduce(0, +))
        guard let part else {
            counts = [Array(repeating: capacity, count: experts)]
            division = nil
            return
        }
        let parts = RowParts(rows: capacity, parts: part.collective.size)
        counts = Array(
            repeating: Array(repeating: parts.length, count: experts), count: announcesAllParts ? parts.count : 1)
        var places: [Int32] = []
        var rows = Array(repeating: Int32(-1), count: experts * capacity)
        for index in 0..<parts.count {
            for expert in 0..<experts {
                for place in index * parts.length..<(index + 1) * parts.length {
                    let row = expert * capacity + place
                    if place < capacity { rows[row] = Int32(places.count) }
                    places.append(place < capacity ? Int32(row) : -1)
                }
            }
        }
        division = RowOrder(
            places: try backend.tensor(places, Shape(places.count)), rows: try backend.tensor(rows, Shape(rows.count)))
    }

    func rows(of x: Variable, on tape: Tape) throws -> Variable {
        try ownPart(of: LocalDispatcher().dispatch(x, decision, on: tape).finish().source, on: tape)
    }

    func numbers(_ numbers: Tensor, on tape: Tape) throws -> Variable {
        let rows = try decision.rowNumbers(numbers, rows: decision.rowBound, tape.backend)
        return try ownPart(of: .constant(rows), on: tape)
    }

    private func ownPart(of rows: Variable, on tape: Tape) throws -> Variable {
        guard let part, let division else { return rows }
        return try tape.takeOwnRows(tape.arranged(rows, division), over: part.collective, layer: part.layer)
    }

    func combine(_ results: Variable, weights: Variable, base: Variable?, on tape: Tape) throws -> Variable {
        var rows = results
        if let part, let division {
            let all = try tape.startAllGather(
                results, downstream: .replicated, over: part.collective, layer: part.layer
            ).finish()
            rows = try tape.arranged(all, division.reversed)
        }
        return try LocalDispatcher().combine(rows, weights: weights, decision, base: base, on: tape).finish()
    }
}
