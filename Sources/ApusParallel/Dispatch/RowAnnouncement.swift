// Shape letters: N ranks of an expert group, P parts that ranks of a tensor group hold, L local experts.

/// What the ranks of an expert group tell each other before rows travel: k numbers for each rank, which are the rows of
/// each of P parts for each of its L experts, or one number that stands for all of them where rows are padded.
struct RowAnnouncement {
    /// (N k) what this rank tells.
    let numbers: [Int]
    private let parts: Int
    private let experts: Int
    private let isUniform: Bool

    /// What a rank announces about `shipment`.
    ///
    /// - Parameter destinations: The experts of each rank of the group.
    init(_ shipment: any RowShipment, to destinations: [Range<Int>]) {
        parts = shipment.counts.count
        experts = destinations[0].count
        isUniform = shipment.announcedRows != nil
        numbers =
            shipment.announcedRows.map { Array(repeating: $0, count: destinations.count) }
            ?? destinations.flatMap { experts in shipment.counts.flatMap { $0[experts] } }
    }

    /// Rows that `numbers` announce, k for each of any number of ranks: [rank][part][expert].
    func rows(_ numbers: [Int]) -> [[[Int]]] {
        if isUniform {
            return numbers.map { Array(repeating: Array(repeating: $0, count: experts), count: parts) }
        }
        return stride(from: 0, to: numbers.count, by: parts * experts).map { rank in
            (0..<parts).map { part in
                Array(numbers[rank + part * experts..<rank + (part + 1) * experts])
            }
        }
    }
}
