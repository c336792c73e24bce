import ApusKernels
import ApusNN
import ApusTensor
import ArgumentParser

// Shape letters: M rows, N columns, K the contracted extent of a product.

/// `apus bench gemm`: dense products by each engine.
struct BenchGEMM: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "gemm", abstract: "Measure dense products by Apus' own kernels and by oneDNN.",
        discussion: """
            The three forms of a linear layer are timed: nt is x w^T, nn is dy w, and tn is dy^T x, added in f32. The \
            engines alternate, round by round. The last column is the faster engine's share of the processor's peak: \
            multiply-adds on registers alone, measured on the same threads before and after the products.

            Example:
              apus bench gemm --shape 2048x512x256 --shape 512x512x512 --precision bf16
            """)

    @Option(name: .long, help: "MxNxK; may be given several times.")
    var shape: [String] = []

    @OptionGroup var repeats: RoundOptions

    @OptionGroup var options: BenchOptions

    /// Products of the training benchmark's model (2048 tokens, 512 rows of an expert), and a large square one.
    private static let usual = [
        [2048, 768, 256], [2048, 256, 256], [512, 1024, 256], [512, 256, 512], [2048, 4096, 256], [1024, 1024, 1024],
    ]

    func validate() throws {
        for text in shape where BenchGEMM.sizes(text) == nil {
            throw ValidationError("--shape is '\(text)'; it must be MxNxK with sizes from 1 to 65536")
        }
    }

    private static func sizes(_ text: String) -> [Int]? {
        let sizes = text.split(separator: "x", omittingEmptySubsequences: false).map { Int($0) ?? 0 }
        return sizes.count == 3 && sizes.allSatisfy { (1...65536).contains($0) } ? sizes : nil
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
        let engines: [CPUBackend.ProductEngine] = Machine().hasOneDNN ? [.own, .oneDNN] : [.own]
        let backends = engines.map(options.backend)
        let list = shape.isEmpty ? BenchGEMM.usual : shape.compactMap(BenchGEMM.sizes)
        let dtype = options.precision.value.modelType
        let before = MachineSpeed.peak(dtype, pool: backends[0].pool)
        let rows = try list.flatMap { sizes in
            try Form.allCases.map { Row(sizes: sizes, form: $0, speeds: try measure(sizes, $0, backends)) }
        }
        let peak = max(before, MachineSpeed.peak(dtype, pool: backends[0].pool))
        options.report("gemm", fields(rows, engines, peak)) {
            let lines = rows.map { row in
                [row.sizes.map(String.init).joined(separator: " x "), row.form.rawValue]
                    + row.speeds.map { fixed($0 / 1e9, 1) } + ["\(fixed(share(row, peak) * 100, 0)) %"]
            }
            let head = ["M x N x K", "form"] + engines.map { $0 == .own ? "own" : "oneDNN" } + ["of peak"]
            let title = "GFLOP/s, \(options.precision.rawValue), \(options.threads) threads; the processor's peak is "
            let missing = engines.count == 1 ? "\noneDNN was not found: \(Machine().oneDNN)" : ""
            return title + fixed(peak / 1e9, 1) + "\n" + table([head] + lines) + missing
        }
    }

    private func share(_ row: Row, _ peak: Double) -> Double { (row.speeds.max() ?? 0) / peak }

    private func measure(_ sizes: [Int], _ form: Form, _ backends: [CPUBackend]) throws -> [Double] {
        let (m, n, k) = (sizes[0], sizes[1], sizes[2])
        let dtype = options.precision.value.modelType
        let stream = RandomStream(seed: 1, purpose: .initialization)
        let operands = try backends.map { backend in
            let a = try backend.empty(form == .tn ? Shape(k, m) : Shape(m, k), dtype, .workspace)
            let b = try backend.empty(form == .nt ? Shape(n, k) : Shape(k, n), dtype, .workspace)
            try backend.fillRandom(a, .normal(mean: 0, deviation: 1), stream: stream, first: 0)
            try backend.fillRandom(b, .normal(mean: 0, deviation: 1), stream: stream, first: 0)
            let c = try backend.zeros(Shape(m, n), form == .tn ? .f32 : dtype, .workspace)
            return (a: form == .tn ? a.transpose : a.matrix, b: form == .nt ? b.transpose : b.matrix, c: c)
        }
        // Long enough for the clock: about 20 ms at 50 GFLOP/s.
        let count = max(1, Int(1e9 / (2 * Double(m) * Double(n) * Double(k))))
        var times = backends.map { _ in [Double]() }
        for round in 0...(repeats.rounds ?? 9) {
            for (index, backend) in backends.enumerated() {
                let (a, b, c) = operands[index]
                let seconds = try timed {
                    for _ in 0..<count { try backend.matMul(a, b, into: c, adds: form == .tn) }
                }.seconds
                if round > 0 { times[index].append(seconds / Double(count)) }
            }
        }
        return times.map { 2 * Double(m) * Double(n) * Double(k) / median($0) }
    }

    private func fields(
        _ rows: [Row], _ engines: [CPUBackend.ProductEngine], _ peak: Double
    ) -> [(String, JSONText)] {
        let shapes = rows.map { row -> JSONText in
            let sizes = zip(["m", "n", "k"], row.sizes).map { ($0, JSONText.integer($1)) }
            let speeds = zip(engines, row.speeds).map { ("\($0.rawValue)_gflops", JSONText.number($1 / 1e9)) }
            return .object(
                sizes + [("form", .string(row.form.rawValue))] + speeds + [("of_peak", .number(share(row, peak)))])
        }
        return [("peak_gflops", .number(peak / 1e9)), ("shapes", .array(shapes))]
    }
}
