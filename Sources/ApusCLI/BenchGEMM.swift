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
            The engines alternate, round by round. The last column is the faster engine's share of the best speed that any \
            shape reached in this run.

            Example:
              apus bench gemm --shape 2048x512x256 --shape 512x512x512 --precision bf16
            """)

    @Option(name: .long, help: "MxNxK; may be given several times.")
    var shape: [String] = []

    @Option(help: "Rounds; each engine runs once in each. The median counts.")
    var rounds = 9

    @OptionGroup var options: BenchOptions

    /// Products of the training benchmark's model (2048 tokens, 512 rows of an expert), and a large square one.
    private static let usual = [
        [2048, 768, 256], [2048, 256, 256], [512, 1024, 256], [512, 256, 512], [2048, 4096, 256], [1024, 1024, 1024],
    ]

    func validate() throws {
        try requirePositive(("rounds", rounds))
        for text in shape where BenchGEMM.sizes(text) == nil {
            throw ValidationError("--shape is '\(text)'; it must be MxNxK with sizes from 1 to 65536")
        }
    }

    private static func sizes(_ text: String) -> [Int]? {
        let sizes = text.split(separator: "x", omittingEmptySubsequences: false).map { Int($0) ?? 0 }
        return sizes.count == 3 && sizes.allSatisfy { (1...65536).contains($0) } ? sizes : nil
    }

    /// One shape's speeds in FLOP/s, by engine.
    private struct Row {
        let sizes: [Int]
        let speeds: [Double]
    }

    func run() throws {
        let threads = options.threads ?? ThreadPool.availableCores
        let engines: [CPUBackend.ProductEngine] = Machine().hasOneDNN ? [.own, .oneDNN] : [.own]
        let backends = engines.map { CPUBackend(threadCount: threads, productEngine: $0) }
        let list = shape.isEmpty ? BenchGEMM.usual : shape.compactMap(BenchGEMM.sizes)
        let rows = try list.map { Row(sizes: $0, speeds: try measure($0, backends)) }
        let best = rows.flatMap(\.speeds).max() ?? 1
        if options.json {
            print(object(rows, engines, threads))
        } else {
            let lines = rows.map { row in
                [row.sizes.map(String.init).joined(separator: " x ")] + row.speeds.map { fixed($0 / 1e9, 1) }
                    + ["\(fixed((row.speeds.max() ?? 0) / best * 100, 0)) %"]
            }
            let head = ["M x N x K"] + engines.map { $0 == .own ? "own" : "oneDNN" } + ["of best"]
            print("GFLOP/s, \(options.precision.rawValue), \(threads) threads\n" + table([head] + lines))
            if engines.count == 1 { print("oneDNN was not found: \(Machine().oneDNN)") }
        }
    }

    private func measure(_ sizes: [Int], _ backends: [CPUBackend]) throws -> [Double] {
        let (m, n, k) = (sizes[0], sizes[1], sizes[2])
        let dtype = options.precision.value.modelType
        let stream = RandomStream(seed: 1, purpose: .initialization)
        let operands = try backends.map { backend in
            let a = try backend.empty(Shape(m, k), dtype, .workspace)
            let b = try backend.empty(Shape(n, k), dtype, .workspace)
            try backend.fillRandom(a, .normal(mean: 0, deviation: 1), stream: stream, first: 0)
            try backend.fillRandom(b, .normal(mean: 0, deviation: 1), stream: stream, first: 0)
            return (a: a, b: b, c: try backend.empty(Shape(m, n), dtype, .workspace))
        }
        // Long enough for the clock: about 20 ms at 50 GFLOP/s.
        let repeats = max(1, Int(1e9 / (2 * Double(m) * Double(n) * Double(k))))
        var times = backends.map { _ in [Double]() }
        for round in 0...rounds {
            for (index, backend) in backends.enumerated() {
                let (a, b, c) = operands[index]
                let seconds = try timed {
                    for _ in 0..<repeats { try backend.matMul(a.matrix, b.transpose, into: c) }
                }.seconds
                if round > 0 { times[index].append(seconds / Double(repeats)) }
            }
        }
        return times.map { 2 * Double(m) * Double(n) * Double(k) / median($0) }
    }

    private func object(_ rows: [Row], _ engines: [CPUBackend.ProductEngine], _ threads: Int) -> JSONText {
        .object([
            ("bench", .string("gemm")), ("precision", .string(options.precision.rawValue)),
            ("threads", .integer(threads)),
            (
                "shapes",
                .array(
                    rows.map { row in
                        .object(
                            zip(["m", "n", "k"], row.sizes).map { ($0, JSONText.integer($1)) }
                                + zip(engines, row.speeds).map { ("\($0.rawValue)_gflops", JSONText.number($1 / 1e9)) })
                    })
            ),
        ])
    }
}
