import ApusTensor

// Tables for people, objects for programs, and lines for the way from rank to rank.
extension OperationTotals {
    private static let head = ["communicator", "operation", "calls", "bytes", "seconds", "exposed"]

    /// A table of one rank: communicator, operation, calls, bytes, seconds, exposed seconds (`-` where not known).
    public var table: String {
        aligned(
            [OperationTotals.head]
                + rows.map { row in
                    [
                        row.communicator, row.operation, "\(row.calls)", formatBytes(row.bytes),
                        decimals(row.seconds, 4), row.exposedSeconds.map { decimals($0, 4) } ?? "-",
                    ]
                }, leftColumns: 2)
    }

    /// An array of objects: communicator, operation, calls, bytes, seconds, exposed_seconds (null where not known).
    public var json: String {
        let objects = rows.map { row in
            """
            {"communicator":\(jsonString(row.communicator)),"operation":\(jsonString(row.operation)),\
            "calls":\(row.calls),"bytes":\(row.bytes),"seconds":\(row.seconds),"exposed_seconds":\
            \(row.exposedSeconds.map { "\($0)" } ?? "null")}
            """
        }
        return "[" + objects.joined(separator: ",") + "]"
    }

    /// A table over ranks: calls and bytes of all together, the mean time of a rank, and the rank that was held up longest,
    /// where there is more than one; `-` where it is not known.
    public static func table(ranks: [OperationTotals]) -> String {
        let keys = ranks.flatMap { $0.rows.map { [$0.communicator, $0.operation] } }
            .sorted { ($0[0], $0[1]) < ($1[0], $1[1]) }
        let unique = keys.indices.filter { $0 == 0 || keys[$0] != keys[$0 - 1] }.map { keys[$0] }
        let lines = unique.map { key in
            let found = ranks.indices.compactMap { rank in
                ranks[rank].rows.first { $0.communicator == key[0] && $0.operation == key[1] }.map { (rank, $0) }
            }
            let mean = { (values: [Double]) in decimals(values.reduce(0, +) / Double(max(ranks.count, 1)), 4) }
            let exposed = found.compactMap { rank, row in row.exposedSeconds.map { (rank: rank, seconds: $0) } }
            let most = exposed.count == found.count ? exposed.max { $0.seconds < $1.seconds } : nil
            return key + [
                "\(found.reduce(0) { $0 + $1.1.calls })", formatBytes(found.reduce(0) { $0 + $1.1.bytes }),
                mean(found.map(\.1.seconds)), most == nil ? "-" : mean(exposed.map(\.seconds)),
                most.map { "\(decimals($0.seconds, 4)) on rank \($0.rank)" } ?? "-",
            ]
        }
        return aligned([head + ["most exposed"]] + lines, leftColumns: 2)
    }

    /// Brings every rank's totals to `root`; `nil` elsewhere. Every rank calls this.
    ///
    /// - Throws: ``CollectiveError``.
    public func gathered(over ranks: any Collective, root: Int = 0) throws -> [OperationTotals]? {
        try ranks.gatherText(lines, root: root)?.map(OperationTotals.init(lines:))
    }

    /// One line for each row, tabs between.
    var lines: String {
        rows.map { row in
            [
                row.communicator, row.operation, "\(row.calls)", "\(row.bytes)", "\(row.seconds)",
                row.exposedSeconds.map { "\($0)" } ?? "-",
            ].joined(separator: "\t")
        }.joined(separator: "\n")
    }

    /// Reads ``lines``.
    init(lines: String) {
        rows = lines.split(separator: "\n").compactMap { line in
            let cells = line.split(separator: "\t", omittingEmptySubsequences: false)
            guard cells.count == 6, let calls = Int(cells[2]), let bytes = Int(cells[3]),
                let seconds = Double(cells[4])
            else { return nil }
            return Row(
                communicator: String(cells[0]), operation: String(cells[1]), calls: calls, bytes: bytes,
                seconds: seconds, exposedSeconds: Double(cells[5]))
        }
    }
}

/// Cells in columns of one width, the first `leftColumns` begin at the left.
private func aligned(_ rows: [[String]], leftColumns: Int) -> String {
    let columns = rows.map(\.count).max() ?? 0
    let widths = (0..<columns).map { column in rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0 }
    return rows.map { row in
        let cells = row.enumerated().map { column, cell in
            let space = String(repeating: " ", count: widths[column] - cell.count)
            return column < leftColumns ? cell + space : space + cell
        }
        let line = cells.joined(separator: "  ")
        return String(line[..<(line.lastIndex { $0 != " " }.map(line.index(after:)) ?? line.startIndex)])
    }.joined(separator: "\n")
}

/// A number of zero or more with a fixed count of decimals.
private func decimals(_ value: Double, _ count: Int) -> String {
    let scale = (0..<count).reduce(1) { product, _ in product * 10 }
    let scaled = Int((value * Double(scale)).rounded())
    let rest = String(scaled % scale)
    return "\(scaled / scale)." + String(repeating: "0", count: count - rest.count) + rest
}
