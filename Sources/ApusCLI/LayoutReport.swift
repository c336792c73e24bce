import ApusNN
import ApusTraining

/// What `apus verify layout` prints.
struct LayoutReport {
    private let found: LayoutFindings

    init(_ found: LayoutFindings) { self.found = found }

    /// A table of the worst parameters, the choices that differ, and the verdict.
    func text(_ most: Int) -> String {
        let tolerance = found.tolerance
        let rows = found.rows.prefix(most).map { row in
            [row.parameter.name, short(row.gradient), short(row.descent), short(row.adamW)]
        }
        let limits = ["(limit)", short(tolerance.gradient), short(tolerance.descent), short(tolerance.adamW)]
        let table = columns([["parameter", "gradient", "descent", "AdamW"]] + rows + [limits])
        return ([heading, table, losses] + choices(most) + [verdict]).joined(separator: "\n")
    }

    private var heading: String {
        "\(found.layout), \(found.precision.rawValue)\(found.isReplayed ? ", routing replayed" : ", routing free")\n"
    }

    private var losses: String {
        let limit = short(found.tolerance.loss)
        return "\nlosses of \(found.losses.count) steps: \(short(found.lossDifference)) apart (limit \(limit))"
    }

    private func choices(_ most: Int) -> [String] {
        let choices = found.choices
        guard choices.count > 0 else { return ["routing choices: all \(choices.compared) are the same"] }
        let list = choices.differing.prefix(most).map {
            "  layer \($0.layer), token \($0.token): scores \(short(Double($0.gap))) apart"
        }
        let limit =
            found.isReplayed ? "(limit \(short(Double(found.tolerance.gap))))" : "(none may, for routing is free)"
        return ["routing choices: \(choices.count) tokens of \(choices.compared) choices went elsewhere \(limit)"]
            + list
    }

    private var verdict: String {
        found.agrees
            ? "the layout computes what one rank computes" : "the layout does NOT compute what one rank computes"
    }

    /// Everything, for a machine.
    var object: JSONText {
        .object([
            ("layout", .string("\(found.layout)")), ("precision", .string(found.precision.rawValue)),
            ("agrees", .bool(found.agrees)), ("loss_difference", .number(found.lossDifference)),
            ("choices", .integer(found.choices.compared)), ("choices_differing", .integer(found.choices.count)),
            (
                "parameters",
                .array(
                    found.rows.map { row in
                        .object([
                            ("name", .string(row.parameter.name)), ("gradient", .number(row.gradient)),
                            ("descent", .number(row.descent)), ("adamw", .number(row.adamW)),
                        ])
                    })
            ),
        ])
    }

    private func columns(_ rows: [[String]]) -> String {
        let width = rows.map { $0[0].count }.max() ?? 0
        return rows.map { row in
            row[0].padding(to: width) + row.dropFirst().map { "  " + $0.padding(to: 9) }.joined()
        }.joined(separator: "\n")
    }

    /// Two digits and a power of ten.
    private func short(_ value: Double) -> String {
        guard value.isFinite, value != 0 else { return "\(value)" }
        var (mantissa, exponent) = (abs(value), 0)
        while mantissa >= 10 { (mantissa, exponent) = (mantissa / 10, exponent + 1) }
        while mantissa < 1 { (mantissa, exponent) = (mantissa * 10, exponent - 1) }
        return "\(Double(Int(mantissa * 10)) / 10)e\(exponent)"
    }
}

extension String {
    fileprivate func padding(to width: Int) -> String { self + String(repeating: " ", count: max(width - count, 0)) }
}
