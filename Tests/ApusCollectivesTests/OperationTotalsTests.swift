import ApusTensor
import Testing

@testable import ApusCollectives

/// What collectives cost, in tables.
@Suite struct OperationTotalsTests {
    @Test func `a communicator's kind is its name without numbers of groups`() {
        let kinds = [
            "world": "world", "expert4.1": "expert4", "data.0": "data", "expert-data4.12#2": "expert-data4",
            "expert.0/tensor.1#2": "expert/tensor", "v1.5x": "v1.5x", "odd.": "odd.",
        ]
        for (name, kind) in kinds { #expect(CollectiveLedger.kind(ofCommunicator: name) == kind) }
    }

    @Test func `totals sum over groups and types, in order, and come to one rank as they were`() throws {
        let outcomes = try InProcess.run(ranks: 4) { world in
            let ledger = CollectiveLedger()
            let counted = CountingCollective(world, in: ledger)
            let expert = try #require(try counted.split(name: "expert2", color: world.rank / 2))
            let data = try #require(try counted.split(name: "data", color: world.rank % 2))
            let memory = CachingAllocator()
            let floats = try memory.tensor([Float](repeating: 1, count: 2), Shape(2))
            let numbers = try memory.tensor([Int32](repeating: 1, count: 4), Shape(4))
            try expert.allToAll(floats, into: try memory.empty(Shape(2), .f32, .data))
            try expert.allToAll(numbers, into: try memory.empty(Shape(4), .i32, .data))
            for _ in 0...world.rank % 2 { try data.allReduce(floats, into: floats) }
            let totals = OperationTotals(ledger)
            #expect(OperationTotals(lines: totals.lines) == totals)
            return (totals, try totals.gathered(over: world, root: 1))
        }
        for (rank, outcome) in outcomes.enumerated() {
            #expect(
                outcome.0.rows.map { [$0.communicator, $0.operation] } == [
                    ["data", "all-reduce"], ["expert2", "all-to-all"],
                ])
            let row = try #require(outcome.0["expert2", .allToAll])
            #expect(row.calls == 2 && row.bytes == 8 + 16)
            #expect(try #require(row.exposedSeconds) <= row.seconds)
            #expect(outcome.0["data", .allReduce]?.calls == 1 + rank % 2)
            #expect(outcome.0["data", .allToAll] == nil)
            #expect(outcome.1 == (rank == 1 ? outcomes.map(\.0) : nil))
        }
        let table = OperationTotals.table(ranks: outcomes.map(\.0)).split(separator: "\n")
        #expect(table.count == 3)
        #expect(table[1].hasPrefix("data          all-reduce      6"), "\(table[1])")
        #expect(table[2].contains("expert2       all-to-all      8   96 B"), "\(table[2])")
        #expect(table[2].contains("on rank"))
    }

    @Test func `text and objects say the same`() throws {
        let totals = OperationTotals(rows: [
            .init(
                communicator: "expert4", operation: "all-to-all", calls: 12, bytes: 3 << 20, seconds: 1.25,
                exposedSeconds: 0.5)
        ])
        #expect(
            totals.table == """
                communicator  operation   calls  bytes  seconds  exposed
                expert4       all-to-all     12  3 MiB   1.2500   0.5000
                """)
        #expect(
            totals.json == """
                [{"communicator":"expert4","operation":"all-to-all","calls":12,"bytes":3145728,"seconds":1.25,\
                "exposed_seconds":0.5}]
                """)
        #expect(totals.exposedSeconds == 0.5)
        #expect(OperationTotals.table(ranks: [totals, OperationTotals(rows: [])]).contains("0.6250"))
        #expect(OperationTotals(lines: "").rows.isEmpty)
    }

    @Test func `exposed seconds that nobody knows are not told as none`() {
        let known = OperationTotals.Row(
            communicator: "world", operation: "barrier", calls: 1, bytes: 0, seconds: 1, exposedSeconds: 0.5)
        let unknown = OperationTotals.Row(
            communicator: "data", operation: "all-reduce", calls: 3, bytes: 12, seconds: 0.25, exposedSeconds: nil)
        let totals = OperationTotals(rows: [unknown, known])
        #expect(totals.exposedSeconds == nil)
        #expect(totals.table.split(separator: "\n")[1].hasSuffix("0.2500        -"))
        #expect(totals.json.contains(#""seconds":0.25,"exposed_seconds":null}"#))
        #expect(OperationTotals(lines: totals.lines) == totals)
        let lines = OperationTotals.table(ranks: [totals, totals]).split(separator: "\n")
        #expect(lines[1].hasSuffix("0.2500        -                 -"), "\(lines[1])")
        #expect(lines[2].hasSuffix("1.0000   0.5000  0.5000 on rank 0"), "\(lines[2])")
    }

    @Test(arguments: worldSizes) func `texts of any lengths come to the root`(size: Int) throws {
        let text = { @Sendable (rank: Int) in
            rank % 3 == 1 ? "" : String(repeating: "räng \(rank)\n", count: rank * rank * 400 + 1)
        }
        for root in [0, size - 1] {
            let gathered = try InProcess.run(ranks: size) { try $0.gatherText(text($0.rank), root: root) ?? [] }
            for rank in 0..<size {
                // Not compared in the expectation, which would print them all.
                let isRight = gathered[rank] == (rank == root ? (0..<size).map(text) : [])
                #expect(isRight, "rank \(rank)")
            }
        }
        #expect(try SingleRank().gatherText("alone") == ["alone"])
    }

    @Test func `ranks agree on a moment`() throws {
        // Threads share one clock, so that what they call the same moment can be compared.
        let moments = try InProcess.run(ranks: 3) { try $0.sharedMoment() }
        let times = moments.map(\.nanoseconds)
        let spread = try #require(times.max()) - (try #require(times.min()))
        #expect(Double(spread) * 1e-9 <= moments[0].uncertainty + 1e-6, "\(moments)")
        #expect(Set(moments.map(\.uncertainty)).count == 1)
    }
}
