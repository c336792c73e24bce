import ApusKernels
import ApusNN
import ApusTensor
import ArgumentParser

// Shape letters: M rows, N columns, K the contracted extent of a product.

/// `apus bench gemm`: dense products by each engine.
struct BenchGEMM: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "gemm", abstract: "Measure dense products by Apus' own kernels and by oneDNN or cuBLAS.",
        discussion: """
            The three forms of a linear layer are timed: nt is x w^T, nn is dy w, and tn is dy^T x, added in f32 (with \
            --precision bf16-pure in bf16). The engines alternate, round by round: our own kernels, and oneDNN on the CPU, \
            cuBLAS on a GPU. The last column is the faster engine's share of the processor's peak: multiply-adds on \
            registers alone, measured on the same threads before and after the products; on a GPU of a product of 8192 x \
            8192 x 8192.

            Example:
              apus bench gemm --shape 2048x512x256 --shape 512x512x512 --precision bf16
              apus bench gemm --precision bf16-pure --device cuda
            """)

    @Option(name: .long, help: "MxNxK; may be given several times.")
    var shape: [String] = []

    @OptionGroup var repeats: RoundOptions

    @Option(help: "Where to compute: auto, cpu or cuda.")
    var device = DeviceChoice.cpu

    @OptionGroup var options: BenchOptions

    /// Products of the training benchmark's model (2048 tokens, 512 rows of an expert), and a large square one.
    private static let usual = [
        [2048, 768, 256], [2048, 256, 256], [512, 1024, 256], [512, 256, 512], [2048, 4096, 256], [1024, 1024, 1024],
    ]

    /// A large square one, and the products of an OLMoE layer's attention and of all its rows with one expert.
    private static let large = [[8192, 8192, 8192], [8192, 6144, 2048], [8192, 2048, 2048], [262_144, 2048, 2048]]

    func validate() throws {
        for text in shape where BenchGEMM.sizes(text) == nil {
            throw ValidationError("--shape is '\(text)'; it must be MxNxK with sizes from 1 to 1048576")
        }
    }

    private static func sizes(_ text: String) -> [Int]? {
        let sizes = text.split(separator: "x", omittingEmptySubsequences: false).map { Int($0) ?? 0 }
        return sizes.count == 3 && sizes.allSatisfy { (1...1 << 20).contains($0) } ? sizes : nil
    }

    /// Which operands are transposed as they are stored: `nt` is (M, K) by (N, K).
    private enum Form: String, CaseIterable {
        case nt, nn, tn
    }

    /// The speeds in FLOP/s of one product, by engine.
    private struct Row {
        let sizes: [Int]
        let form: Form
        let speeds: [Double]
    }

    func run() throws {
        let engines = try options.denseEngines(on: device)
        let backend = engines[0].backend
        let usual = backend is CPUBackend ? BenchGEMM.usual : BenchGEMM.large
        let list = shape.isEmpty ? usual : shape.compactMap(BenchGEMM.sizes)
        let dtype = options.precision.value.modelType
        let before = try peakSpeed(dtype, backend)
        let rows = try list.flatMap { sizes in
            try Form.allCases.map {
                Row(sizes: sizes, form: $0, speeds: try measure(sizes, $0, engines.map(\.backend)))
            }
        }
        let peak = max(before, try peakSpeed(dtype, backend))
        options.report("gemm", fields(rows, engines, peak)) {
            let lines = rows.map { row in
                [row.sizes.map(String.init).joined(separator: " x "), row.form.rawValue]
                    + row.speeds.map { fixed($0 / 1e9, 1) } + ["\(fixed(share(row, peak) * 100, 0)) %"]
            }
            let head = ["M x N x K", "form"] + engines.map(\.name) + ["of peak"]
            let title = "GFLOP/s, \(options.precision.rawValue), \(options.place(device)); the peak is "
            let missing =
                backend is CPUBackend && engines.count == 1 ? "\noneDNN was not found: \(Machine().oneDNN)" : ""
            return title + fixed(peak / 1e9, 1) + "\n" + table([head] + lines) + missing
        }
    }

    private func share(_ row: Row, _ peak: Double) -> Double { (row.speeds.max() ?? 0) / peak }

    private func measure(_ sizes: [Int], _ form: Form, _ backends: [any Backend]) throws -> [Double] {
        let (m, n, k) = (sizes[0], sizes[1], sizes[2])
        let precision = options.precision.value
        let dtype = precision.modelType
        let operations = 2 * Double(m) * Double(n) * Double(k)
        let works = try backends.map { backend in
            let a = try backend.random(form == .tn ? Shape(k, m) : Shape(m, k), dtype)
            let b = try backend.random(form == .nt ? Shape(n, k) : Shape(k, n), dtype)
            let c = try backend.zeros(Shape(m, n), form == .tn ? precision.gradientType : dtype, .workspace)
            let (left, right) = (form == .tn ? a.transpose : a.matrix, form == .nt ? b.transpose : b.matrix)
            // Long enough for the clock: about 20 ms at 50 GFLOP/s, 0.2 ms at 500 TFLOP/s.
            let repeats = max(1, Int((backend is CPUBackend ? 1e9 : 1e11) / operations))
            return TimedWork(backend: backend, repeats: repeats) {
                try backend.matMul(left, right, into: c, adds: form == .tn)
            }
        }
        return try timeInTurn(works, rounds: repeats.rounds ?? 9).map { operations / median($0) }
    }

    private func fields(
        _ rows: [Row], _ engines: [BenchEngine], _ peak: Double
    ) -> [(String, JSONText)] {
        let shapes = rows.map { row -> JSONText in
            let sizes = zip(["m", "n", "k"], row.sizes).map { ($0, JSONText.integer($1)) }
            let speeds = zip(engines, row.speeds).map { ("\($0.name)_gflops", JSONText.number($1 / 1e9)) }
            return .object(
                sizes + [("form", .string(row.form.rawValue))] + speeds + [("of_peak", .number(share(row, peak)))])
        }
        return [("device", .string(device.rawValue)), ("peak_gflops", .number(peak / 1e9)), ("shapes", .array(shapes))]
    }
}
