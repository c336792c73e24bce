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
            f32 (with --precision bf16-pure in bf16). Loads fall as Zipf's law says, in a mixed order. On the CPU the engines \
            alternate, round by round: what Apus takes by itself, its own kernels, and oneDNN in a loop over pieces of \
            experts. The last column is the fastest one's share of the processor's peak, on a GPU of a large dense product.

            Example:
              apus bench grouped --rows 4096 --experts 64 --inputs 512 --outputs 1024 --precision bf16
              apus bench grouped --rows 262144 --experts 64 --inputs 2048 --outputs 2048 --precision bf16 --device cuda
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
    @Option(help: "Where to compute: auto, cpu or cuda.")
    var device = DeviceChoice.cpu
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
        let engines = try options.engines(on: device, includingAutomatic: true)
        let backend = engines[0].backend
        let dtype = options.precision.value.modelType
        let counts = LayerShape.cut(rows, by: LayerShape.shares(experts, areEven: even))
        let before = try peakSpeed(dtype, backend)
        let speeds = try measure(engines.map(\.backend), counts)
        let peak = max(before, try peakSpeed(dtype, backend))
        let rows = Form.allCases.map { form in (form, speeds[form, default: []]) }
        let forms = rows.map { form, speeds -> JSONText in
            let engines = zip(engines, speeds).map { ("\($0.name)_gflops", JSONText.number($1 / 1e9)) }
            return .object(
                [("form", .string(form.rawValue))] + engines + [("of_peak", .number((speeds.max() ?? 0) / peak))])
        }
        options.report(
            "grouped",
            [
                ("rows", .integer(self.rows)), ("experts", .integer(experts)), ("inputs", .integer(inputs)),
                ("outputs", .integer(outputs)), ("device", .string(device.rawValue)),
                ("most_rows", .integer(counts.max() ?? 0)),
                ("peak_gflops", .number(peak / 1e9)), ("forms", .array(forms)),
            ]
        ) {
            let head = ["form"] + engines.map(\.name) + ["of peak"]
            let lines = rows.map { form, speeds in
                [form.rawValue] + speeds.map { fixed($0 / 1e9, 1) }
                    + ["\(fixed((speeds.max() ?? 0) / peak * 100, 0)) %"]
            }
            return """
                GFLOP/s, \(options.precision.rawValue), \(options.place(device)); \(self.rows) rows, \(experts) experts \
                \(inputs) -> \(outputs), \(counts.min() ?? 0) to \(counts.max() ?? 0) rows each; peak \
                \(fixed(peak / 1e9, 1))
                \(table([head] + lines))
                """
        }
    }

    /// FLOP/s of each form, by engine.
    private func measure(_ backends: [any Backend], _ counts: [Int]) throws -> [Form: [Double]] {
        let precision = options.precision.value
        let dtype = precision.modelType
        let sets = try backends.map { backend in
            let offsets = counts.reduce(into: [Int32(0)]) { $0.append(($0.last ?? 0) + Int32($1)) }
            let dy = try backend.random(Shape(rows, outputs), dtype)
            let x = try backend.random(Shape(rows, inputs), dtype)
            let weights = try backend.random(Shape(experts, outputs, inputs), dtype)
            return (
                x: x, dy: dy, weights: weights, y: try backend.empty(dy.shape, dtype, .workspace),
                dx: try backend.empty(x.shape, dtype, .workspace),
                gradient: try backend.zeros(weights.shape, precision.gradientType, .workspace),
                offsets: try backend.tensor(offsets, Shape(experts + 1))
            )
        }
        let works = Form.allCases.flatMap { form in
            zip(backends, sets).map { backend, set in
                TimedWork(backend: backend) {
                    switch form {
                    case .forward:
                        try backend.groupedMatMul(
                            set.x, rows: nil, weights: set.weights, transposed: true, offsets: set.offsets, into: set.y)
                    case .dataGradient:
                        try backend.groupedMatMul(
                            set.dy, rows: nil, weights: set.weights, transposed: false, offsets: set.offsets,
                            into: set.dx)
                    case .weightGradient:
                        try backend.groupedWeightGradient(
                            set.dy, set.x, rows: nil, offsets: set.offsets, into: set.gradient, adds: true)
                    }
                }
            }
        }
        let flops = 2 * Double(rows) * Double(inputs) * Double(outputs)
        let speeds = try timeInTurn(works, rounds: repeats.rounds ?? 15).map { flops / median($0) }
        var result: [Form: [Double]] = [:]
        for (index, form) in Form.allCases.enumerated() {
            result[form] = Array(speeds[index * backends.count..<(index + 1) * backends.count])
        }
        return result
    }
}
