import ApusKernels
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
    }

    /// The costly ones first.
    let rows: [Row]

    /// The mean of the traced steps, over ops and the phases that are no passes.
    init(_ trace: Trace, configuration: ModelConfiguration, tokens: Int, sequence: Int) {
        let steps = Double(max(trace.spans.count { $0.category == .step }, 1))
        let flops = configuration.flopsPerToken(meanContext: configuration.meanContext(sequence: sequence))
        // Backward does twice the products of forward; that of attention forms the scores again.
        let products = [
            "experts": 3 * flops.experts, "linear": 3 * flops.projections, "attention": 3.5 * flops.attention,
            "language_model_loss": 3 * flops.head, "router": 3 * flops.routers,
        ]
        var rows: [String: Row] = [:]
        for span in trace.spans {
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

    /// As lines, beside a processor that does `peak` FLOP/s.
    func text(peak: Double) -> String {
        let head = ["op", "forward ms", "backward ms", "GFLOP", "floor ms", "of peak"]
        let lines = rows.filter { $0.seconds > 5e-5 }.map { row in
            [row.name, fixed(row.forward * 1e3, 1), fixed(row.backward * 1e3, 1)]
                + (row.flops == 0
                    ? ["", "", ""]
                    : [
                        fixed(row.flops / 1e9, 1), fixed(row.flops / peak * 1e3, 1),
                        "\(fixed(row.flops / row.seconds / peak * 100, 0)) %",
                    ])
        }
        return table([head] + lines) + "\nall: \(fixed(seconds * 1e3, 1)) ms; peak \(fixed(peak / 1e9, 1)) GFLOP/s"
    }

    /// The same for `--json`.
    func object(peak: Double) -> JSONText {
        .array(
            rows.map { row in
                .object([
                    ("op", .string(row.name)), ("forward_seconds", .number(row.forward)),
                    ("backward_seconds", .number(row.backward)), ("flop", .number(row.flops)),
                    ("of_peak", .number(row.flops / row.seconds / peak)),
                ])
            })
    }
}
