import ApusCollectives
import ApusNN
import ApusTensor

// Shape letters: T tokens, D model width, E experts.

/// What one rank sends in a dispatch: the rows of its tokens, those of one expert after those of the other, and what it
/// makes of the results.
protocol RowShipment {
    /// Rows of each expert (E) in every part that the receivers gather, [part][expert].
    var counts: [[Int]] { get }
    /// Whether all ranks' counts follow from one number each, so that nothing else must be announced.
    var announcedRows: Int? { get }
    /// The rows that this rank sends.
    func rows(of x: Variable, on tape: Tape) throws -> Variable
    /// (R, 2): the numbers of these rows, of all slots' (T, 2 K). Nothing is differentiated on `tape`, which does not record.
    func numbers(_ numbers: Tensor, on tape: Tape) throws -> Variable
    /// (T, D): the weighted sum of the results, which came back in the order of ``rows(of:on:)``.
    func combine(_ results: Variable, weights: Variable, base: Variable?, on tape: Tape) throws -> Variable
}

/// The division of what a tensor-parallel group's ranks all hold, one part for each.
struct PartOfGroup {
    /// The group.
    let collective: any Collective
    /// For messages.
    let layer: Int?
}
