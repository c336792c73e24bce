import ApusTensor
import Foundation
import Testing

@testable import ApusCollectives

/// The rows of communication in a Chrome trace.
@Suite struct ChromeTraceTests {
    private func span(_ start: Int, _ end: Int, layer: Int? = nil) -> CollectiveSpan {
        CollectiveSpan(
            communicator: "expert4.1", operation: .allToAll, layer: layer, bytes: 1_258_291, start: start, end: end,
            held: 250)
    }

    private func events(_ text: String) throws -> [[String: Any]] {
        try #require(try JSONSerialization.jsonObject(with: Data(ChromeTrace.file([text]).utf8)) as? [[String: Any]])
    }

    @Test func `an operation is an event of its rank, on thread 1, in microseconds`() throws {
        let spans = CollectiveSpans(spans: [span(10_001_500, 10_003_750, layer: 3)], leftOut: 0)
        let all = try events(spans.chromeEvents(rank: 5, origin: 10_000_000))
        #expect(
            all.compactMap { $0["name"] as? String } == [
                "process_name", "thread_name", "all-to-all expert4 layer 3, 1.2 MiB",
            ])
        #expect(all.allSatisfy { $0["pid"] as? Int == 5 })
        #expect(all.compactMap { $0["tid"] as? Int } == [0, 1, 1])
        #expect(all.compactMap { ($0["args"] as? [String: Any])?["name"] as? String } == ["rank 5", "communication"])
        #expect(all[2]["ph"] as? String == "X" && all[2]["ts"] as? Double == 1.5 && all[2]["dur"] as? Double == 2.25)
        let arguments = try #require(all[2]["args"] as? [String: Any])
        #expect(arguments["communicator"] as? String == "expert4.1" && arguments["bytes"] as? Int == 1_258_291)
        #expect(arguments["exposed_us"] as? Double == 0.25)
    }

    @Test func `operations under way together are on threads of their own`() throws {
        let spans = CollectiveSpans(
            spans: [span(0, 100), span(50, 300), span(100, 200), span(150, 160), span(300, 400)], leftOut: 0)
        let all = try events(spans.chromeEvents(rank: 0, origin: 0)).filter { $0["ph"] as? String == "X" }
        #expect(all.compactMap { $0["tid"] as? Int } == [1, 2, 1, 3, 1])
    }

    @Test func `no spans are no events, and times before the origin have a sign`() throws {
        #expect(CollectiveSpans(spans: [], leftOut: 0).chromeEvents(rank: 0, origin: 0).isEmpty)
        #expect(ChromeTrace.file([""]) == "[\n\n]\n")
        #expect(ChromeTrace.microseconds(-1_001) == "-1.001" && ChromeTrace.microseconds(12) == "0.012")
    }
}
