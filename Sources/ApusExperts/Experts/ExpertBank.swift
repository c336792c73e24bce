public import ApusNN

// Shape letters: D model width, E experts, R routed rows.

/// The experts of a layer, computed together on rows sorted by expert.
public protocol ExpertBank {
    /// Experts in this bank.
    var experts: Int { get }
    /// (R, D) to (R, D): row `r` through the expert whose range of `rows.offsets` holds it.
    func callAsFunction(_ rows: RoutedRows, on tape: Tape) throws -> Variable
    /// The same bank over a contiguous range of its experts.
    func restricted(to experts: Range<Int>) -> Self
}
