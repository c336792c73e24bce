import ApusCollectives
import ApusNN
import ApusTensor

// Shape letters: R rows sent, S rows received, D row width.

/// The way of rows to the ranks that they are for: one all-to-all, or one after the other with the rows put in another
/// order before each and after the last.
struct RowPath {
    /// One all-to-all.
    struct Hop {
        /// Among whom.
        let group: any Collective
        /// Rows for and from each of its ranks; `nil` for equally many.
        let splits: RowSplits?
    }

    /// The all-to-alls.
    let hops: [Hop]
    /// How rows are arranged before each hop, and after the last: one more than there are hops; `nil` for as they are.
    let orders: [RowOrder?]
    /// The hop that takes longest, which is left under way for other work to hide; the others are waited for.
    let slowest: Int

    /// The way back.
    var reversed: RowPath {
        RowPath(
            hops: hops.reversed().map { Hop(group: $0.group, splits: $0.splits?.mirrored) },
            orders: orders.reversed().map { $0?.reversed }, slowest: hops.count - 1 - slowest)
    }

    /// Sends rows (R, D) on their way. R may be more than the first hop sends; S is `rowBound`, with zeros behind the
    /// rows that arrive, or just these.
    func start(_ rows: Variable, rowBound: Int? = nil, layer: Int?, on tape: Tape) throws -> RowsUnderWay {
        var rows = rows
        for hop in 0..<slowest {
            rows = try start(hop, rows, rowBound: rowBound, layer: layer, on: tape).finish()
        }
        return RowsUnderWay(try start(slowest, rows, rowBound: rowBound, layer: layer, on: tape)) { arrived in
            var rows = arrived
            for hop in slowest + 1..<hops.count {
                rows = try start(hop, rows, rowBound: rowBound, layer: layer, on: tape).finish()
            }
            return try arranged(rows, orders[hops.count], on: tape)
        }
    }

    private func start(
        _ hop: Int, _ rows: Variable, rowBound: Int?, layer: Int?, on tape: Tape
    ) throws -> Exchange {
        try tape.startAllToAll(
            arranged(rows, orders[hop], on: tape), splits: hops[hop].splits,
            rowBound: hop == hops.count - 1 ? rowBound : nil, over: hops[hop].group, layer: layer)
    }

    private func arranged(_ rows: Variable, _ order: RowOrder?, on tape: Tape) throws -> Variable {
        try order.map { try tape.arranged(rows, $0) } ?? rows
    }
}

/// Rows on their way, which a closure can hold.
final class RowsUnderWay {
    private var exchange: Exchange?
    private let complete: (Variable) throws -> Variable

    /// Rows in `exchange`, of which `complete` makes those that arrive in the end.
    init(_ exchange: consuming Exchange, _ complete: @escaping (Variable) throws -> Variable) {
        self.exchange = consume exchange
        self.complete = complete
    }

    /// Waits for the rows (S, D); once.
    func finish() throws -> Variable {
        guard let exchange = exchange.take() else { preconditionFailure("an exchange is finished once") }
        return try complete(exchange.finish())
    }
}
