import ApusTestSupport
import Foundation
import Testing

@testable import ApusReport

/// The page as a browser gets it.
@Suite struct ReportPageTests {
    private let scratch: ScratchFolder

    init() throws { scratch = try ScratchFolder() }

    private func page(_ names: String...) throws -> ReportPage {
        let lines = (1...30).map { line($0, loss: 3 - Double($0) / 30, heldOut: $0 % 10 == 0 ? 2.5 : nil) }
        return try ReportPage(paths: names.map { try scratch.run($0, text(lines)) })
    }

    /// The data between the page's script marks.
    private func data(_ html: String) throws -> [String: Any] {
        let open = try #require(html.firstRange(of: "<script type=\"application/json\" id=\"data\">"))
        let close = try #require(html[open.upperBound...].firstRange(of: "</script>"))
        let text = String(html[open.upperBound..<close.lowerBound])
        return try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
    }

    @Test func `a page of two runs holds both names and refers to nothing outside`() throws {
        let html = try page("first-run", "second-run").html
        for name in ["first-run", "second-run"] {
            #expect(html.contains("<th scope=\"col\">\(name)</th>"))
            #expect(html.contains("\"name\":\"\(name)\""))
        }
        // The name of SVG's vocabulary is no address that is fetched.
        let rest = html.replacing("http://www.w3.org/2000/svg", with: "")
        for reference in ["http://", "https://", "src=", "@import", "url(", "<link"] {
            #expect(!rest.contains(reference), "\(reference)")
        }
        #expect(!html.contains("{{") && html.hasPrefix("<!doctype html>") && html.hasSuffix("</html>\n"))
        #expect(html.contains("class HeatMap") && html.contains("prefers-color-scheme: dark"))
    }

    @Test func `the data are the run's`() throws {
        let runs = try #require(try data(page("run").html)["runs"] as? [[String: Any]])
        let run = try #require(runs.first)
        #expect(runs.count == 1 && run["steps"] as? [Int] == Array(1...30))
        let curves = try #require(run["curves"] as? [String: [String: [Double]]])
        #expect(
            Set(curves.keys) == [
                "loss", "balance_loss", "dropped_fraction", "grad_norm", "lr", "tokens_per_second", "mfu", "peak_bytes",
                "entropy", "peak_to_mean", "dead_experts",
            ])
        #expect(curves["loss"]?["mean"]?.last == 2 && curves["loss"]?["min"] == nil)
        #expect(curves["dead_experts"]?["mean"]?.first == 1 && curves["peak_to_mean"]?["mean"]?.first == 2)
        #expect(abs((curves["entropy"]?["mean"]?.first ?? 0) - 0.75) < 1e-9)
        let held = try #require(run["held"] as? [String: [Double]])
        #expect(held == ["steps": [10, 20, 30], "values": [2.5, 2.5, 2.5]])
        let heat = try #require(run["heat"] as? [String: Any])
        #expect((heat["columns"] as? [[Int]])?.last == [30, 30])
        let layers = try #require(heat["layers"] as? [[String: Any]])
        #expect(layers.map { $0["experts"] as? Int } == [4])
        #expect((layers[0]["cells"] as? String)?.count == 30 * 4 * 2)
    }

    @Test func `a name cannot end the script or become markup`() throws {
        let html = try page("a<b>&\"c'").html
        #expect(html.contains("Run a&lt;b>&amp;&quot;c'") && !html.contains("a<b>"))
        let runs = try #require(try data(html)["runs"] as? [[String: Any]])
        #expect(runs[0]["name"] as? String == "a<b>&\"c'")
    }

    @Test func `runs of one name are told apart, and one run is not shown twice`() throws {
        let paths = try ["left/run", "right/run"].map { try scratch.run($0, text([line(1)])) }
        #expect(try ReportPage(paths: paths).runs.map(\.name) == paths)
        #expect(throws: ReportError.twice(path: paths[0])) { try ReportPage(paths: [paths[0], paths[0]]) }
        #expect(throws: ReportError.noRun(path: "/nonexistent/run")) { try ReportPage(paths: ["/nonexistent/run"]) }
    }

    @Test func `a dense run has no expert charts`() throws {
        let path = try scratch.run("dense", text((1...3).map { line($0, shares: []) }))
        let run = try #require(try ReportPage(paths: [path]).runs.first)
        #expect(run.curves["entropy"] == nil && run.curves["dead_experts"] == nil && run.loads.layers.isEmpty)
        #expect(run.summary.model == nil && run.recipeProblem?.contains("recipe.yaml") == true)
    }
}
