import ApusCollectives
import ApusKernels
import ApusTensor

// Shape letters: R routed rows. N ranks of an expert group, P parts that ranks of a tensor group hold, L local experts.

/// Who sends how many rows where in one dispatch, and in which order a rank's experts read what arrives.
///
/// Each of P tensor ranks receives rows in the order [source][expert], and P such buffers of `bound` rows lie one after
/// the other when they are gathered. The experts read [expert][source][part]: since a source holds consecutive tokens
/// and a part consecutive ones of these, the rows of an expert are in the order of the global batch, which is the order
/// in which one rank would sum their products.
struct ExchangePlan: Equatable {
    /// Rows for and from each rank of the expert group, for this rank's part.
    let splits: RowSplits
    /// Rows of each gathered buffer: the most that any part receives.
    let bound: Int
    /// (R) the place among the gathered rows of each row that the experts read.
    let places: [Int32]
    /// (P bound) the reverse; -1 where there is no row.
    let rows: [Int32]
    /// (L + 1) first row of each local expert, and R.
    let offsets: [Int32]

    /// A plan.
    ///
    /// - Parameters:
    ///   - sent: Rows for each rank of the group, of this rank's part.
    ///   - received: Rows from each rank, [source][part][expert].
    ///   - part: This rank's part.
    init(sent: [Int], received: [[[Int]]], part: Int) {
        let parts = received[0].count
        let experts = received[0][0].count
        let totals = (0..<parts).map { part in received.reduce(0) { $0 + $1[part].reduce(0, +) } }
        splits = RowSplits(sent: sent, received: received.map { $0[part].reduce(0, +) })
        let bound = totals.max() ?? 0
        var begin = (0..<parts).map { $0 * bound }
        // Where the run of each source, part and expert begins.
        var starts = received
        for source in received.indices {
            for part in 0..<parts {
                for expert in 0..<experts {
                    starts[source][part][expert] = begin[part]
                    begin[part] += received[source][part][expert]
                }
            }
        }
        var places: [Int32] = []
        places.reserveCapacity(totals.reduce(0, +))
        var rows = Array(repeating: Int32(-1), count: parts * bound)
        var offsets: [Int32] = [0]
        for expert in 0..<experts {
            for source in received.indices {
                for part in 0..<parts {
                    let first = starts[source][part][expert]
                    for place in first..<first + received[source][part][expert] {
                        rows[place] = Int32(places.count)
                        places.append(Int32(place))
                    }
                }
            }
            offsets.append(Int32(places.count))
        }
        self.bound = bound
        self.places = places
        self.rows = rows
        self.offsets = offsets
    }

    /// Whether the rows arrive in the order in which they are read.
    var isInOrder: Bool { places.count == rows.count && places.enumerated().allSatisfy { $0.offset == $0.element } }

    /// From the order in which the rows arrive to that in which they are read; `nil` when they are the same.
    func order(_ backend: any Backend) throws -> RowOrder? {
        guard !isInOrder else { return nil }
        return RowOrder(
            places: try backend.tensor(places, Shape(places.count)), rows: try backend.tensor(rows, Shape(rows.count)))
    }

    /// Whether every rank sends and receives the same number of rows.
    var isEven: Bool { Set(splits.sent + splits.received).count == 1 }
}
