import ApusModels
import ApusNN

// Shape letters: T tokens, D model width, K choices per token, V vocabulary.

/// Where the time of training steps goes: each op with its products' operations and their share of the peak.
struct PhaseTable {
    /// One op, forward and backward, for a step.
    struct Row {
        let name: String
        var forward = 0.0
        var backward = 0.0
        /// Operations of its matrix products, forward and backward; 0 where it has none.
        let flops: Double

        var seconds: Double { forward + backward }

        /// The products' share of `peak` FLOP/s; 0 without products.
        func share(of peak: Double) -> Double { flops == 0 ? 0 : flops / seconds / peak }
    }

    /// The costly ones first.
    let rows: [Row]
    /// Of a whole step, by the same clock.
    let stepSeconds: Double

    /// The mean of the traced steps, over ops and the phases that are no passes.
    init(_ spans: [Trace.Span], configuration: ModelConfiguration, tokens: Int, sequence: Int) {
        let traced = spans.filter { $0.category == .step }
        let steps = Double(max(traced.count, 1))
        stepSeconds = Double(traced.reduce(0) { $0 + $1.duration }) * 1e-9 / steps
        let flops = configuration.flopsPerToken(meanContext: configuration.meanContext(sequence: sequence))
        // Backward does twice the products of forward; that of attention forms the scores again.
        let products = [
            "experts": 3 * flops.experts, "linear": 3 * flops.projections, "attention": 3.5 * flops.attention,
            "language_model_loss": 3 * flops.head, "router": 3 * flops.routers,
        ]
        var rows: [String: Row] = [:]
        for span in spans {
            let seconds = Double(span.duration) * 1e-9 / steps
            func add(_ place: WritableKeyPath<Row, Double>) {
                let flops = products[span.name].map { $0 * Double(tokens) } ?? 0
                rows[span.name, default: Row(name: span.name, flops: flops)][keyPath: place] += seconds
            }
            switch span.category {
            case .op: add(\.forward)
            case .adjoint: add(\.backward)
            case .phase where span.name != "forward" && span.name != "backward": add(\.forward)
            case .phase, .part, .step: break
            }
        }
        self.rows = rows.values.sorted { $0.seconds > $1.seconds }
    }

    /// Seconds of all rows.
    var seconds: Double { rows.reduce(0) { $0 + $1.seconds } }

    /// As lines, beside a device that does `peak` FLOP/s.
    func text(peak: Double) -> String {
        let head = ["op", "forward ms", "backward ms", "GFLOP", "floor ms", "of peak"]
        let lines = rows.filter { $0.seconds > 5e-5 }.map { row in
            [row.name, fixed(row.forward * 1e3, 1), fixed(row.backward * 1e3, 1)]
                + (row.flops == 0
                    ? ["", "", ""]
                    : [
                        fixed(row.flops / 1e9, 1), fixed(row.flops / peak * 1e3, 1),
                        "\(fixed(row.share(of: peak) * 100, 0)) %",
                    ])
        }
        return table([head] + lines)
            + "\nall: \(fixed(seconds * 1e3, 1)) ms of the step's \(fixed(stepSeconds * 1e3, 1)) ms; "
            + "peak \(fixed(peak / 1e9, 1)) GFLOP/s"
    }

    /// The same for `--json`, with the step's own time.
    func fields(peak: Double) -> [(String, JSONText)] {
        let rows = rows.map { row in
            JSONText.object([
                ("op", .string(row.name)), ("forward_seconds", .number(row.forward)),
                ("backward_seconds", .number(row.backward)), ("flop", .number(row.flops)),
                ("of_peak", .number(row.share(of: peak))),
            ])
        }
        return [
            ("peak_gflops", .number(peak / 1e9)), ("traced_step_seconds", .number(stepSeconds)),
            ("phases", .array(rows)),
        ]
    }
}
