import ApusTestSupport
import Testing

@testable import ApusReport

/// What is left of a long run.
@Suite struct DownsamplingTests {
    @Test(arguments: [(1, 10), (10, 10), (11, 10), (999, 100), (1000, 100), (1_000_003, 1000)])
    func `buckets share the steps evenly, each step in one`(_ steps: Int, _ limit: Int) {
        let buckets = Buckets(steps: steps, limit: limit)
        #expect(buckets.count == min(steps, limit))
        #expect(buckets.places(of: 0).lowerBound == 0 && buckets.places(of: buckets.count - 1).upperBound == steps)
        for bucket in 0..<buckets.count {
            let places = buckets.places(of: bucket)
            #expect(places.count >= steps / limit && places.count <= steps / limit + 1)
            #expect(places.allSatisfy { buckets.bucket(of: $0) == bucket })
        }
    }

    @Test func `a spike stays in its bucket's range`() {
        let buckets = Buckets(steps: 1000, limit: 10)
        var curve = Curve(buckets: 10)
        for place in 0..<1000 { curve.add(place == 537 ? 50 : 1, to: buckets.bucket(of: place)) }
        curve.add(nil, to: 0)
        curve.add(.nan, to: 0)
        #expect(curve.most == [1, 1, 1, 1, 1, 50, 1, 1, 1, 1])
        #expect(curve.least == Array(repeating: 1, count: 10))
        #expect(curve.means[5] == 1.49 && curve.means[4] == 1)
        #expect(Curve(buckets: 2).means == [nil, nil])
    }

    @Test func `shares survive their two digits, and only none at all is zero`() throws {
        let shares = [0, 1e-9, 0.001, 0.0125, 0.125, 0.5, 1]
        var loads = LoadHistory(buckets: Buckets(steps: 2, limit: 2))
        loads.add([(3, shares)], at: 1)
        let layer = try #require(loads.layers[3])
        let cells = Array(layer.cells)
        #expect(cells.count == 2 * 2 * shares.count)
        #expect(cells.prefix(2 * shares.count).allSatisfy { $0 == "~" }, "no step, no share")
        let digits = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
        for (expert, share) in shares.enumerated() {
            let pair = cells[(2 * shares.count + 2 * expert)...].prefix(2).compactMap { digits.firstIndex(of: $0) }
            let root = Double(64 * pair[0] + pair[1]) / 4095
            #expect((root == 0) == (share == 0))
            #expect(abs(root * root - share) <= 1e-6 + 0.008 * share, "\(share)")
        }
    }

    @Test(arguments: [
        (0, "0"), (1, "1"), (-2.5, "-2.5"), (123_456_789, "123460000"), (0.000_123_456_7, "0.00012346"),
        (1.999_999, "2"), (3.14159, "3.1416"), (.infinity, "null"), (.nan, "null"),
    ])
    func `numbers have five digits`(_ value: Double, _ text: String) {
        #expect(shortNumber(value) == text)
    }

    @Test func `a page does not grow with the steps`() throws {
        let scratch = try ScratchFolder()
        let shares = (0..<4).map { _ in Array(repeating: 0.03125, count: 32) }
        let sizes = try [3000, 12_000].map { count in
            let lines = (1...count).map { line($0, loss: 1 / Double($0), shares: shares) }
            let path = try scratch.run("run-\(count)", text(lines))
            let page = try ReportPage(paths: [path])
            let run = try #require(page.runs.first)
            #expect(run.steps.count == 1000 && run.columns.first?.first == 1 && run.columns.last?.last == count)
            #expect(abs(run.summary.tokens - 2000 * Double(count)) < 1)
            return page.html.utf8.count
        }
        #expect(sizes[0] < 1_000_000 && abs(sizes[1] - sizes[0]) < sizes[0] / 10, "\(sizes)")
    }
}
