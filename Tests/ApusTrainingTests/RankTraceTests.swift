import ApusCollectives
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Foundation
import Testing

@testable import ApusTraining

/// The trace of many ranks in one file.
@Suite struct RankTraceTests {
    @Test func `every rank has its rows, on one clock`() throws {
        let scratch = try ScratchFolder()
        let path = "\(scratch.path)/trace.json"
        let moments = try InProcess.run(ranks: 3) { world in
            let ledger = CollectiveLedger()
            let counted = CountingCollective(world, in: ledger)
            let expert = try #require(try counted.split(name: "expert3", color: 0))
            let backend = CPUBackend(threadCount: 1)
            let trace = Trace(on: backend)
            let origin = try world.sharedMoment().nanoseconds
            ledger.startRecording()
            let begin = HostClock.nanoseconds - origin
            try Optional(trace).span("step 1", .step) {
                let rows = try backend.tensor([Float](repeating: 1, count: 3), Shape(3))
                try expert.allToAll(rows, into: backend.empty(Shape(3), .f32, .data), layer: world.rank)
            }
            let end = HostClock.nanoseconds - origin
            try TraceFile.write(trace, ledger.stopRecording(), of: world, origin: origin, to: path)
            return (begin: Double(begin) / 1000, end: Double(end) / 1000)
        }
        let content = try Data(contentsOf: URL(fileURLWithPath: path))
        let all = try #require(try JSONSerialization.jsonObject(with: content) as? [[String: Any]])
        for rank in 0..<3 {
            let events = all.filter { $0["pid"] as? Int == rank }
            let names = events.filter { $0["ph"] as? String == "M" }
            let labels = names.compactMap { ($0["args"] as? [String: Any])?["name"] as? String }
            #expect(Set(labels) == ["rank \(rank)", "compute", "communication"])
            let spans = events.filter { $0["ph"] as? String == "X" }
            #expect(spans.compactMap { $0["name"] as? String } == ["step 1", "all-to-all expert3 layer \(rank), 12 B"])
            #expect(spans.compactMap { $0["tid"] as? Int } == [0, 1])
            for span in spans {
                let start = try #require(span["ts"] as? Double)
                let duration = try #require(span["dur"] as? Double)
                #expect(moments[rank].begin <= start + 0.001 && start + duration <= moments[rank].end + 0.001)
            }
            // The exchange happened within the step.
            let starts = spans.compactMap { $0["ts"] as? Double }
            #expect(starts[0] <= starts[1] + 0.001)
        }
        // The process is named with each of its two kinds of rows.
        #expect(all.count == 3 * 6)
    }

    @Test func `a rank without events leaves a file that opens`() throws {
        let scratch = try ScratchFolder()
        let path = "\(scratch.path)/trace.json"
        try TraceFile.write(nil, CollectiveLedger().stopRecording(), of: SingleRank(), origin: 0, to: path)
        let content = try Data(contentsOf: URL(fileURLWithPath: path))
        #expect((try JSONSerialization.jsonObject(with: content) as? [Any])?.isEmpty == true)
    }
}
