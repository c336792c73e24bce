public import ApusKernels
public import ApusTensor

// Shape letters: T tokens, K choices per token, R routed rows.

/// The numbers of slots in the global batch, `t K + k` of token `t`, which travel to the experts beside the tokens: what a
/// row's draws are keyed by wherever it is computed.
///
/// A number is two rows' worth of `f32`, its digits of base 65,536, so that it goes every way that activations go.
enum SlotNumbers {
    /// (T, 2 K) for tokens from `first` on.
    static func of(tokens: Int, from first: Int, choices: Int, _ backend: any Backend) throws -> Tensor {
        let digits = (0..<tokens * choices).flatMap { slot in
            let number = first * choices + slot
            return [Float(number / 65_536), Float(number % 65_536)]
        }
        return try backend.tensor(digits, Shape(tokens, 2 * choices))
    }
}

extension RoutingDecision {
    /// (R, 2): the numbers of the routed rows, from those of all slots (T, 2 K); zeros for a row without a slot.
    ///
    /// - Parameter rows: R, at least the rows of the permutation.
    /// - Throws: ``TensorError/outOfMemory(requested:purpose:statistics:limit:)``
    public func rowNumbers(_ numbers: Tensor, rows: Int, _ backend: any Backend) throws -> Tensor {
        let placed = try backend.zeros(Shape(rows, 2), .f32)
        // Each slot writes its row; entries of the reverse table beyond R are undefined.
        try backend.scatterRows(
            numbers.reshaped(tokenCount * choices, 2), slotToRow: permutation.slotToRow, choices: 1, into: placed)
        return placed
    }
}
