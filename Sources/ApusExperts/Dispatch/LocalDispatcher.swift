import ApusKernels
public import ApusNN
public import ApusTensor

// Shape letters: T tokens, D model width, K choices per token, R routed rows.

/// The dispatcher of one rank: all experts are here, nothing is exchanged.
public struct LocalDispatcher: Dispatcher {
    /// A dispatcher.
    public init() {}

    public func dispatch(
        _ x: Variable, _ decision: RoutingDecision, numbers: Tensor?, on tape: Tape
    ) throws -> InFlight {
        let numbers = try numbers.map { try decision.rowNumbers($0, rows: decision.rowBound, tape.backend) }
        guard decision.isPadded else {
            return InFlight {
                RoutedRows(tokens: x, permutation: decision.permutation, choices: decision.choices, numbers: numbers)
            }
        }
        // Empty places of a padded layout need rows of zeros, which only a copy has.
        let permutation = decision.permutation
        let rows = try tape.backend.empty(Shape(decision.rowBound, x.shape[1]), x.dtype)
        try tape.backend.gatherRows(x.tensor, index: permutation.rowToToken, scale: nil, into: rows)
        let variable = tape.record("dispatch", inputs: [x], output: rows) { flow in
            guard let gradient = flow.output() else { return }
            try flow.accumulate(into: x) { dx, adds in
                try flow.backend.combineRows(
                    gradient, slotToRow: permutation.slotToRow, weights: nil, choices: decision.choices, into: dx,
                    adds: adds)
            }
        }
        return InFlight { RoutedRows(rows: variable, offsets: permutation.offsets, numbers: numbers) }
    }

    public func combine(
        _ results: Variable, weights: Variable, _ decision: RoutingDecision, base: Variable?, on tape: Tape
    ) throws -> InFlightCombination {
        let backend = tape.backend
        let choices = decision.choices
        let slotToRow = decision.permutation.slotToRow
        let y =
            try base?.forAdding(on: tape)
            ?? backend.empty(Shape(decision.tokenCount, results.shape[1]), results.dtype)
        try backend.combineRows(
            results.tensor, slotToRow: slotToRow, weights: weights.tensor, choices: choices, into: y, adds: base != nil)
        let inputs = [results, weights] + (base.map { [$0] } ?? [])
        let combined = tape.record("combine", inputs: inputs, output: y) { flow in
            guard let dy = flow.takeOutput() else { return }
            // Only padded rows are read without being named by a slot; what they hold would reach weight gradients.
            let drows = try flow.backend.empty(results.shape, results.dtype)
            if decision.isPadded { try flow.backend.fill(drows, with: 0) }
            let dweights = try flow.backend.empty(weights.shape, .f32)
            try flow.backend.combineRowsBackward(
                dy, rows: results.tensor, slotToRow: slotToRow, weights: weights.tensor, choices: choices, drows: drows,
                dweights: dweights)
            try flow.accumulate(drows, into: results)
            try flow.accumulate(dweights, into: weights)
            if let base { try flow.accumulate(dy, into: base) }
        }
        return InFlightCombination { combined }
    }
}

extension Variable {
    /// The value in storage that may be added to: its own, unless a checkpointed block may need it again.
    func forAdding(on tape: Tape) throws -> Tensor {
        guard tape.keepsOutputs else { return tensor }
        let copy = try tape.backend.empty(shape, dtype)
        try tape.backend.copy(tensor, into: copy)
        return copy
    }
}
