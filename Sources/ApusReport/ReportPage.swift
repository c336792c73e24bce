import ApusTensor
import CApusReport

/// One HTML page about one run or several, whole in itself: nothing is fetched, and no program but its own runs.
public struct ReportPage: Sendable {
    /// The runs, with names that differ.
    public let runs: [RunReport]

    /// Reads the runs in these folders.
    ///
    /// - Throws: ``ReportError``, ``FileError``.
    public init(paths: [String]) throws {
        let limits = RunReport.Limits(runs: paths.count)
        for (index, path) in paths.enumerated() {
            let others = paths[..<index].map(withoutTrailingSlashes)
            if others.contains(withoutTrailingSlashes(path)) { throw ReportError.twice(path: path) }
        }
        var runs = try paths.map { try RunReport(path: $0, limits: limits) }
        // Runs of the same name are told apart by their paths.
        let uses = Dictionary(runs.map { ($0.name, 1) }, uniquingKeysWith: +)
        for index in runs.indices where uses[runs[index].name] != 1 { runs[index].name = paths[index] }
        self.runs = runs
    }

    /// What the page is called.
    public var title: String {
        runs.count == 1 ? "Run \(runs[0].name)" : "Runs \(runs.map(\.name).joined(separator: ", "))"
    }

    /// The page.
    public var html: String {
        let parts = ReportPage.parts
        let program = parts.filter { $0.name.hasSuffix(".js") }.map(\.text).joined(separator: "\n")
        let data = "{\"runs\":[\(runs.map(\.json).joined(separator: ",\n"))]}"
        let fields = [
            "title": escaped(title), "style": parts.first { $0.name == "style.css" }?.text ?? "",
            "summary": summary, "program": program,
            // Inside a script element only this character could end it.
            "data": data.replacing("<", with: "\\u003c"),
        ]
        return filled(parts.first { $0.name == "page.html" }?.text ?? "", fields)
    }

    /// The table of the runs' figures: a column for each run.
    private var summary: String {
        let tables = runs.map(\.summary.rows)
        let names = runs.map { "<th scope=\"col\">\(escaped($0.name))</th>" }.joined()
        let rows = tables[0].indices.map { row in
            let cells = tables.map { "<td>\(escaped($0[row].text))</td>" }.joined()
            return "<tr><th scope=\"row\">\(escaped(tables[0][row].label))</th>\(cells)</tr>"
        }
        let head = runs.count > 1 ? "<thead><tr><th scope=\"col\">run</th>\(names)</tr></thead>\n" : ""
        let kind = runs.count > 1 ? "card table" : "card table single"
        return """
            <div class="\(kind)" tabindex="0" role="group" aria-label="Figures of the runs"><table>
            \(head)<tbody>
            \(rows.joined(separator: "\n"))
            </tbody></table></div>
            """
    }

    /// A template with each `{{name}}` replaced; what is put in is not looked at again.
    private func filled(_ template: String, _ fields: [String: String]) -> String {
        var page = ""
        var rest = template[...]
        while let open = rest.firstRange(of: "{{"), let close = rest[open.upperBound...].firstRange(of: "}}") {
            page += rest[..<open.lowerBound]
            page += fields[String(rest[open.upperBound..<close.lowerBound])] ?? ""
            rest = rest[close.upperBound...]
        }
        return page + rest
    }

    private func escaped(_ text: String) -> String {
        text.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing("\"", with: "&quot;")
    }

    /// The embedded files.
    private static var parts: [(name: String, text: String)] {
        var count = 0
        guard let first = apus_page_parts(&count) else { return [] }
        return UnsafeBufferPointer(start: first, count: count).map { part in
            let bytes = UnsafeBufferPointer(start: part.bytes, count: part.count)
            return (String(cString: part.name), String(decoding: bytes, as: UTF8.self))
        }
    }
}
