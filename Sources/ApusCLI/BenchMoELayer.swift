import ApusExperts
import ApusKernels
import ApusTensor
import ArgumentParser

// Shape letters: T tokens, D model width, F expert width, E experts, K choices per token.

/// `apus bench moe-layer`: one layer, forward and backward.
struct BenchMoELayer: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "moe-layer", abstract: "Measure a mixture-of-experts layer, forward and backward.",
        discussion: """
            The router is part of what is timed. With --routing zipf the most popular expert gets about E times the tokens \
            of the least popular one; the loads that came out are printed. Several banks are measured in turn on the same \
            weights and tokens: grouped, block-sparse, padded:FACTOR (capacity, which drops tokens), padded:all (capacity \
            for the fullest expert). FLOP/s count the rows that dropless experts compute: padding is no work, and what \
            is dropped is not done.

            Example:
              apus bench moe-layer --bank grouped --bank block-sparse --bank padded:1.5 --routing zipf
              apus bench moe-layer --tokens 2048 --width 256 --expert-width 512 --experts 8 --choices 2
            """)

    /// How popular experts are.
    enum Popularity: String, ExpressibleByArgument, CaseIterable {
        case balanced, zipf
    }

    @Option(help: "T.")
    var tokens = 2048
    @Option(help: "D.")
    var width = 256
    @Option(help: "F.")
    var expertWidth = 512
    @Option(help: "E.")
    var experts = 8
    @Option(help: "K.")
    var choices = 2
    @Option(help: "swiglu, gelu, gelu-tanh or relu.")
    var activation = "swiglu"
    @Option(help: "balanced or zipf.")
    var routing = Popularity.balanced
    @Option(help: "grouped, block-sparse, padded:FACTOR or padded:all; may be given several times.")
    var bank: [BankVariant] = [.grouped]
    @Option(help: "Rows and columns of a block of the block-sparse bank.")
    var blockSize = 128
    @OptionGroup var repeats: RoundOptions
    @OptionGroup var options: BenchOptions

    func validate() throws {
        try requireSizes(
            ("tokens", tokens), ("width", width), ("expert-width", expertWidth), ("choices", choices),
            ("block-size", blockSize))
        try requireExperts(experts)
        if choices > experts {
            throw ValidationError("--choices is \(choices), more than the \(experts) experts there are")
        }
        if Activation(rawValue: activation) == nil {
            throw ValidationError(
                "--activation is '\(activation)'; it must be one of "
                    + Activation.allCases.map(\.rawValue).joined(separator: ", "))
        }
        if bank.contains(where: { $0.kind == .blockSparse }), expertWidth % blockSize != 0 {
            throw ValidationError(
                "--expert-width is \(expertWidth), no multiple of the block size \(blockSize); give --block-size too")
        }
    }

    func run() throws {
        let backend = options.backend()
        let shape = MoELayerShape(
            tokens: tokens, width: width, expertWidth: expertWidth, experts: experts, choices: choices,
            activation: Activation(rawValue: activation) ?? .swiglu, isSkewed: routing == .zipf, blockSize: blockSize)
        let precision = options.precision.value
        let sample = try MoELayerBench(shape, bank: .grouped, policy: .dropless, precision: precision, backend).pass()
        let skew = Double(sample.rows.max() ?? 0) * Double(experts) / Double(tokens * choices)
        let benches = try bank.map {
            try MoELayerBench(shape, bank: $0, policy: $0.policy(skew: skew), precision: precision, backend)
        }
        var results = bank.map { Result(bank: $0) }
        var systemAllocations = 0
        for round in -2..<(repeats.rounds ?? 9) {
            if round == 0 { systemAllocations = backend.allocator.statistics.systemAllocations }
            for (index, bench) in benches.enumerated() {
                backend.allocator.resetPeaks()
                let pass = try bench.pass()
                results[index].peakBytes = backend.allocator.statistics.totalPeak
                if round >= 0 { results[index].passes.append(pass) }
            }
        }
        systemAllocations = backend.allocator.statistics.systemAllocations - systemAllocations
        report(shape, results, skew: skew, rows: sample.rows, systemAllocations)
    }

    /// One bank's timed passes.
    private struct Result {
        let bank: BankVariant
        var passes: [MoELayerBench.Pass] = []
        var peakBytes = 0

        var forward: Double { median(passes.map(\.forward)) }
        var backward: Double { median(passes.map(\.backward)) }
        var total: Double { median(passes.map { $0.forward + $0.backward }) }
        var dropped: Double { passes.last?.dropped ?? 0 }

        /// Time of the first bank over this one's, round by round.
        func speed(over first: Result) -> Double {
            median(zip(first.passes, passes).map { ($0.forward + $0.backward) / ($1.forward + $1.backward) })
        }
    }

    private func report(
        _ shape: MoELayerShape, _ results: [Result], skew: Double, rows: [Int], _ systemAllocations: Int
    ) {
        let products = Double(shape.activation.inputsPerOutput + 1)
        let flops = 6 * Double(tokens) * Double(width) * (Double(choices * expertWidth) * products + Double(experts))
        let speeds = results.map { flops * (1 - $0.dropped) / $0.total / 1e9 }
        let fields: [(String, JSONText)] = [
            ("tokens", .integer(tokens)), ("width", .integer(width)), ("expert_width", .integer(expertWidth)),
            ("experts", .integer(experts)), ("choices", .integer(choices)), ("activation", .string(activation)),
            ("routing", .string(routing.rawValue)), ("peak_load_to_mean", .number(skew)),
            ("rows", .array(rows.map { .integer($0) })), ("system_allocations", .integer(systemAllocations)),
            (
                "banks",
                .array(
                    zip(results, speeds).map { result, speed in
                        .object([
                            ("bank", .string(result.bank.description)), ("forward_seconds", .number(result.forward)),
                            ("backward_seconds", .number(result.backward)), ("gflops", .number(speed)),
                            ("speed_to_first", .number(result.speed(over: results[0]))),
                            ("dropped_fraction", .number(result.dropped)), ("peak_bytes", .integer(result.peakBytes)),
                        ])
                    })
            ),
        ]
        options.report("moe-layer", fields) {
            let head = ["bank", "forward ms", "backward ms", "GFLOP/s", "to first", "dropped", "memory"]
            let lines = zip(results, speeds).map { result, speed in
                [
                    result.bank.description, fixed(result.forward * 1e3, 2), fixed(result.backward * 1e3, 2),
                    fixed(speed, 1), fixed(result.speed(over: results[0]), 2), "\(fixed(result.dropped * 100, 1)) %",
                    formatBytes(result.peakBytes),
                ]
            }
            return """
                T \(tokens), D \(width), F \(expertWidth), E \(experts), K \(choices), \(activation), \
                \(options.precision.rawValue), \(options.threads) threads, routing \(routing.rawValue): the fullest \
                expert has \(fixed(skew, 2)) times the mean
                \(table([head] + lines))
                system allocations in timed passes: \(systemAllocations)
                """
        }
    }
}
