import ApusCollectives
import ApusKernels
import Testing

@testable import ApusSystems

/// The report, made small.
struct ReportTests {
    private static func bench() -> TEDBench {
        var bench = TEDBench()
        (bench.ranks, bench.tensor, bench.expert, bench.layers) = (4, 2, 2, 2)
        (bench.width, bench.hidden, bench.vocabulary, bench.sequence) = (32, 32, 64, 8)
        return bench
    }

    @Test func `a report shows what was expected beside what was measured`() throws {
        let ranks = try RanksReport.inProcess(Self.bench(), timed: 1)
        #expect(ranks.agrees && ranks.traffic.count == 16 && ranks.states.count == 2)
        #expect(ranks.traffic.count { $0.seconds != nil } == TEDSwitches.mechanisms.count)
        let report = TEDReport(
            place: "4 threads", ranks: ranks,
            optimizer: try OptimizerSpike.measure(
                parameters: 4096, tile: 1024, steps: 1, backend: CPUBackend(threadCount: 1)), shard: 4096)
        #expect(report.isAsExpected)
        let lines = report.markdown.split(separator: "\n")
        #expect(lines.allSatisfy { $0.count <= 120 || $0.hasPrefix("|") })
        let text = lines.joined(separator: " ")
        for heading in ["mixture's block", "Every combination", "whole step", "State", "optimizer's spike", "Time"] {
            #expect(text.contains(heading), "no '\(heading)'")
        }
        #expect(text.contains("| baseline | 6 / 6, ") && text.contains("| CAC | 4 / 4, "))
        #expect(text.contains("16 of 16 combinations") && text.contains("the same weights"))
        #expect(!text.contains("largest base"))
        #expect(text.contains("CAC takes 6 all-to-alls to 4. DTD divides their bytes by 2.00."))
        #expect(text.contains("CAC takes 6 all-reduces to 4. Fusion makes 3 of 6 a reduce-scatter."))
        let json = report.json
        #expect(json.hasPrefix("{\"bench\": \"ted\"") && json.contains("\"as_expected\": true"))
        #expect(json.count { $0 == "{" } == json.count { $0 == "}" })
    }

    /// Counting is what the report is for: it must show when ranks sent something else.
    @Test func `a difference is shown`() throws {
        let ranks = try RanksReport.inProcess(Self.bench(), timed: 0)
        var traffic = ranks.traffic
        let row = traffic[0]
        traffic[0] = TrafficRow(
            switches: row.switches, block: row.block, step: row.step, agreesOnAllRanks: false, seconds: nil)
        let changed = RanksReport(
            bench: ranks.bench, stateBench: ranks.stateBench, layout: ranks.layout, traffic: traffic,
            states: ranks.states)
        let report = TEDReport(place: "here", ranks: changed)
        let text = report.markdown.split(separator: "\n").joined(separator: " ")
        #expect(!report.isAsExpected && text.contains("| NO |") && text.contains("15 of 16"))
    }

    @Test func `traffic is added and told apart`() {
        var traffic = Traffic()
        traffic.add(.tensor, .allReduce, calls: 2, bytes: 10)
        traffic.add(.expert, .allToAll, bytes: 5)
        let double = traffic * 2 + traffic
        #expect(double[.tensor, .allReduce] == Traffic.Count(calls: 6, bytes: 60))
        #expect(double.only(.expert)[.tensor, .allReduce].calls == 0 && (traffic * 0) == Traffic())
        #expect(traffic.description == "tensor all-reduce 2 calls 20 B; expert all-to-all 1 calls 5 B")
        #expect(Traffic.Group(communicator: "expert-data4.1") == .expertData)
        #expect(Traffic.Group(communicator: "expert4.12") == .expert && Traffic.Group(communicator: "world") == .world)
        #expect(Traffic.Group(communicator: "layout of 2 ranks") == nil)
        #expect(grouped(-1_234_567) == "-1 234 567" && decimal(-0.05, 1) == "-0.1" && decimal(12.345, 2) == "12.35")
    }
}
