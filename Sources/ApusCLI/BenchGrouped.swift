import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ArgumentParser
import Glibc

// Shape letters: R routed rows, E experts, N and K the extents of each expert's weight.

/// `apus bench grouped`: the products of uneven experts.
struct BenchGrouped: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "grouped", abstract: "Measure products of uneven groups of rows with their experts' weights.",
        discussion: """
            The three forms of an expert's linear layer: forward x w^T, data gradient dy w, weight gradient dy^T x added in \
            f32. Loads fall as Zipf's law says, in a mixed order. The engines alternate, round by \
            round: what Apus takes by itself, its own kernels, and oneDNN in a loop over pieces of experts. The last \
            column is the fastest one's share of the processor's peak.

            Example:
              apus bench grouped --rows 4096 --experts 64 --inputs 512 --outputs 1024 --precision bf16
            """)

    @Option(help: "R.")
    var rows = 4096
    @Option(help: "E.")
    var experts = 64
    @Option(help: "K.")
    var inputs = 512
    @Option(help: "N.")
    var outputs = 1024
    @Flag(help: "Give every expert as many rows.")
    var even = false
    @OptionGroup var repeats: RoundOptions
    @OptionGroup var options: BenchOptions

    func validate() throws {
        try requireSizes(("rows", rows), ("inputs", inputs), ("outputs", outputs))
        try requireExperts(experts)
    }

    private enum Form: String, CaseIterable {
        case forward
        case dataGradient = "data gradient"
        case weightGradient = "weight gradient"
    }

    func run() throws {
        let engines: [CPUBackend.ProductEngine] = Machine().hasOneDNN ? [.automatic, .own, .oneDNN] : [.automatic]
        let backends = engines.map(options.backend)
        let dtype = options.precision.value.modelType
        let counts = loads()
        let before = MachineSpeed.peak(dtype, pool: backends[0].pool)
        let speeds = try measure(backends, counts)
        let peak = max(before, MachineSpeed.peak(dtype, pool: backends[0].pool))
        let rows = Form.allCases.map { form in (form, speeds[form, default: []]) }
        let forms = rows.map { form, speeds -> JSONText in
            let engines = zip(engines, speeds).map { ("\($0.rawValue)_gflops", JSONText.number($1 / 1e9)) }
            return .object(
                [("form", .string(form.rawValue))] + engines + [("of_peak", .number((speeds.max() ?? 0) / peak))])
        }
        options.report(
            "grouped",
            [
                ("rows", .integer(self.rows)), ("experts", .integer(experts)), ("inputs", .integer(inputs)),
                ("outputs", .integer(outputs)), ("most_rows", .integer(counts.max() ?? 0)),
                ("peak_gflops", .number(peak / 1e9)), ("forms", .array(forms)),
            ]
        ) {
            let head = ["form"] + engines.map(\.rawValue) + ["of peak"]
            let lines = rows.map { form, speeds in
                [form.rawValue] + speeds.map { fixed($0 / 1e9, 1) }
                    + ["\(fixed((speeds.max() ?? 0) / peak * 100, 0)) %"]
            }
            return """
                GFLOP/s, \(options.precision.rawValue), \(options.threads) threads; \(self.rows) rows, \(experts) experts \
                \(inputs) -> \(outputs), \(counts.min() ?? 0) to \(counts.max() ?? 0) rows each; peak \
                \(fixed(peak / 1e9, 1))
                \(table([head] + lines))
                """
        }
    }

    /// Rows of each expert.
    private func loads() -> [Int] {
        // 7919 is prime: experts in an order that is neither rising nor falling.
        let shares = (0..<experts).map { even ? 1 : 1 / Double(1 + $0 * 7919 % experts) }
        let whole = shares.reduce(0, +)
        var sum = 0.0
        let bounds = shares.map { share in
            sum += share
            return Int((sum / whole * Double(rows)).rounded())
        }
        return zip([0] + bounds, bounds).map { $1 - $0 }
    }

    /// FLOP/s of each form, by engine.
    private func measure(_ backends: [CPUBackend], _ counts: [Int]) throws -> [Form: [Double]] {
        let dtype = options.precision.value.modelType
        let stream = RandomStream(seed: 1, purpose: .initialization)
        let sets = try backends.map { backend in
            let x = try backend.empty(Shape(rows, inputs), dtype, .workspace)
            let dy = try backend.empty(Shape(rows, outputs), dtype, .workspace)
            let weights = try backend.empty(Shape(experts, outputs, inputs), dtype, .workspace)
            for tensor in [x, dy, weights] {
                try backend.fillRandom(tensor, .normal(mean: 0, deviation: 1), stream: stream, first: 0)
            }
            let offsets = counts.reduce(into: [Int32(0)]) { $0.append(($0.last ?? 0) + Int32($1)) }
            return (
                x: x, dy: dy, weights: weights, y: try backend.empty(dy.shape, dtype, .workspace),
                dx: try backend.empty(x.shape, dtype, .workspace),
                gradient: try backend.zeros(weights.shape, .f32, .workspace),
                offsets: try backend.allocator.tensor(offsets, Shape(experts + 1))
            )
        }
        var times: [Form: [[Double]]] = [:]
        for round in 0...(repeats.rounds ?? 15) {
            for form in Form.allCases {
                for (index, (backend, set)) in zip(backends, sets).enumerated() {
                    let seconds = try timed {
                        switch form {
                        case .forward:
                            try backend.groupedMatMul(
                                set.x, rows: nil, weights: set.weights, transposed: true, offsets: set.offsets,
                                into: set.y)
                        case .dataGradient:
                            try backend.groupedMatMul(
                                set.dy, rows: nil, weights: set.weights, transposed: false, offsets: set.offsets,
                                into: set.dx)
                        case .weightGradient:
                            try backend.groupedWeightGradient(
                                set.dy, set.x, rows: nil, offsets: set.offsets, into: set.gradient)
                        }
                    }.seconds
                    guard round > 0 else { continue }
                    times[form, default: backends.map { _ in [] }][index].append(seconds)
                }
            }
        }
        let flops = 2 * Double(rows) * Double(inputs) * Double(outputs)
        return times.mapValues { $0.map { flops / median($0) } }
    }
}
