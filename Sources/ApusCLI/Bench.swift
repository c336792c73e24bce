import ApusExperts
import ApusKernels
import ApusTensor
import ArgumentParser

/// `apus bench`: speed and memory of parts and of the whole.
struct Bench: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measure products, layers, a training step, generation, a tokenizer, reading data, or exchanges.",
        discussion: """
            Figures count only on a machine that does nothing else.

            Example:
              apus bench train --precision bf16
              apus bench moe-layer --tokens 4096 --experts 64 --choices 8 --routing zipf
              apus bench moe-layer --shape olmoe --precision bf16-pure --device cuda
            """,
        subcommands: [
            BenchGEMM.self, BenchGrouped.self, BenchBlockSparse.self, BenchAttention.self, BenchRouting.self,
            BenchMoELayer.self, BenchTrain.self, BenchGenerate.self, BenchTokenizer.self, BenchData.self,
            BenchCollectives.self, BenchTED.self,
        ])
}

/// How many threads, which benchmarks and `apus doctor` take.
struct ThreadOptions: ParsableArguments {
    @Option(help: "Threads (default: one for each core that this process may use).")
    var threads: Int?

    /// The threads to use.
    var count: Int { threads ?? ThreadPool.availableCores }

    func validate() throws {
        if let threads, !(1...1024).contains(threads) { throw ValidationError("--threads must lie in 1 ... 1024") }
    }
}

/// What every benchmark takes, and how it reports.
struct BenchOptions: ParsableArguments {
    @OptionGroup var threadOptions: ThreadOptions

    @Option(help: "f32, bf16, or bf16-pure (gradients and moments in bf16 too).")
    var precision = BenchPrecision.f32

    @Flag(help: "Print one JSON object.")
    var json = false

    /// The threads to use.
    var threads: Int { threadOptions.count }

    /// A backend on these threads.
    func backend(_ engine: CPUBackend.ProductEngine = .automatic) -> CPUBackend {
        CPUBackend(threadCount: threads, memoryLimit: CachingAllocator.physicalMemory, productEngine: engine)
    }

    /// The backend of a device, for benchmarks of what runs on any.
    func backend(
        on device: DeviceChoice, _ engine: CPUBackend.ProductEngine = .automatic, deterministic: Bool = true
    ) throws -> any Backend {
        device == .cpu
            ? backend(engine)
            : try device.backend(threads: threads, memoryLimit: nil, deterministic: deterministic)
    }

    /// Where it runs, in words.
    func place(_ device: DeviceChoice) -> String {
        device == .cpu ? "\(threads) threads" : "device \(device.rawValue)"
    }

    /// Prints one JSON object, which begins with the benchmark's name, precision and threads, or the text.
    func report(_ bench: String, _ fields: [(String, JSONText)], text: () -> String) {
        guard json else { return print(text()) }
        print(
            JSONText.object(
                [
                    ("bench", .string(bench)), ("precision", .string(precision.rawValue)),
                    ("threads", .integer(threads)),
                ] + fields))
    }
}

/// `--rounds` of the benchmarks that repeat what they time.
struct RoundOptions: ParsableArguments {
    @Option(
        help: "Timed rounds (default: 9; grouped: 15; routing: 30; generate: 3; tokenizer, data: 5), for a median.")
    var rounds: Int?

    func validate() throws { try requireSizes(("rounds", rounds ?? 1)) }
}

/// Refuses numbers that are no size of anything, by option.
func requireSizes(_ options: (name: String, value: Int)...) throws {
    let largest = 1 << 20
    for option in options where !(1...largest).contains(option.value) {
        throw ValidationError("--\(option.name) is \(option.value); it must be from 1 to \(largest)")
    }
}

/// Checks the option `--experts`.
func requireExperts(_ experts: Int) throws {
    let most = MoEConfiguration.mostExperts
    guard (1...most).contains(experts) else {
        throw ValidationError("--experts is \(experts); a layer has from 1 to \(most)")
    }
}
