import ApusCUDA
import ApusData
import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusOptim
import ApusTensor
import ApusTraining
import ArgumentParser

// Shape letters: B sequences, S tokens of a sequence.

/// `apus bench train`: whole training steps.
struct BenchTrain: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "train", abstract: "Measure training steps of a 15.7 M parameter MoE model.",
        discussion: """
            4 layers, width 256, 8 experts of 512, 2 for a token, vocabulary 4096; 8 sequences of 256 random tokens; AdamW, \
            no clipping, no balance loss. Benchmarks/peers/train_step.py is the same step in PyTorch, and \
            Benchmarks/peers/alternate_train.py compares the two. With --interactive every line of standard input runs a \
            block of steps. --phases shows which ops the time goes to, beside what their products would take at the \
            processor's peak, or at the speed of a large product on a GPU. Times in --phases and --trace are those of what \
            computes: a GPU's own clock tells them, and the least time in which the host gave it a step is printed beside.

            Model FLOPs of a step are three times those of the forward products: 6 for each active parameter that is \
            multiplied with a token, and causal attention (6 L S D). MFU is their share of --peak-tflops.

            Example:
              apus bench train --precision bf16 --steps 20
              apus bench train --preset olmoe-8-layers --batch 4 --sequence 2048 --precision bf16-pure --device cuda
            """)

    @Option(help: "Timed steps (of a block, with --interactive).")
    var steps = 10

    @Option(help: "Steps before the first timed one.")
    var warmup = 2

    @Option(help: "A preset other than the usual model.")
    var preset = "bench"

    @Option(help: "Sequences of a batch.")
    var batch = 8

    @Option(help: "Tokens of a sequence.")
    var sequence = 256

    @Flag(help: "Run a block for every line of standard input: empty for --steps, a number, or quit.")
    var interactive = false

    @Option(help: "What computes products.")
    var products = ProductChoice.auto

    @Flag(help: "Trace the timed steps and show what each op takes.")
    var phases = false

    @Option(help: "Trace the timed steps into this file (Chrome's format).")
    var trace: String?

    @Option(help: "The TFLOP/s that MFU is a share of (default with cuda: 989, an H100's in bf16; else none).")
    var peakTflops: Double?

    @Option(help: "Where to compute: auto, cpu or cuda.")
    var device = DeviceChoice.cpu
    @Flag(inversion: .prefixedNo, help: "Attention gradients of the same bits every time, as training.deterministic.")
    var deterministic = true
    @OptionGroup var options: BenchOptions

    func validate() throws {
        if interactive, phases || trace != nil {
            throw ValidationError("--phases and --trace are for one block of steps, not for --interactive")
        }
        try requireSizes(("steps", steps), ("batch", batch), ("sequence", sequence))
        if warmup != 0 { try requireSizes(("warmup", warmup)) }
    }

    func run() throws {
        let backend = try options.backend(on: device, products.engine, deterministic: deterministic)
        var bench = try TrainBench(self, backend)
        if warmup > 0 { _ = try bench.block(warmup) }
        backend.allocator.resetPeaks()
        guard interactive else { return try runOnce(&bench, backend) }
        print("ready \(bench.parameters) parameters")
        flushOutput()
        while let line = readLine() {
            let word = line.filter { $0 != " " }
            if word == "quit" { break }
            guard let count = word.isEmpty ? steps : Int(word), count >= 1 else {
                throw CommandError("'\(line)' is no number of steps; give a number from 1, an empty line, or quit")
            }
            print(try bench.block(count).object())
            flushOutput()
        }
    }

    private func runOnce(_ bench: inout TrainBench, _ backend: any Backend) throws {
        let trace = phases || self.trace != nil ? Trace(on: backend) : nil
        let block = try bench.block(steps, trace)
        if let trace, let path = self.trace { try AtomicFile.write(trace.chromeJSON(), to: path) }
        guard let trace, phases else { return print(options.json ? "\(block.object())" : block.text) }
        let peak = try peakSpeed(options.precision.value.modelType, backend)
        let table = try PhaseTable(
            trace.spans(), configuration: bench.configuration, tokens: batch * sequence, sequence: sequence)
        print(
            options.json
                ? "\(block.object(table.fields(peak: peak)))"
                : block.text + "\n\n" + table.text(peak: peak))
    }
}

/// What computes products, as an option.
enum ProductChoice: String, ExpressibleByArgument, CaseIterable {
    case auto, onednn, own

    /// The backend's word for it.
    var engine: CPUBackend.ProductEngine {
        switch self {
        case .auto: .automatic
        case .onednn: .oneDNN
        case .own: .own
        }
    }
}

/// The model, its optimizer and its data; `step` is what is timed.
private struct TrainBench {
    private let command: BenchTrain
    private let backend: any Backend
    private let trainStep: TrainStep
    private let batches: [TokenBatch]
    private var count = 0
    /// The model's shape.
    let configuration: ModelConfiguration
    /// Parameters of the model.
    let parameters: Int

    init(_ command: BenchTrain, _ backend: any Backend) throws {
        var configuration = try ModelConfiguration.preset(named: command.preset)
        guard command.sequence <= configuration.maximumPositions else {
            throw CommandError(
                "--sequence is \(command.sequence), but '\(command.preset)' has \(configuration.maximumPositions) positions"
            )
        }
        configuration.feedForward = configuration.feedForward.map { part in
            guard case .moe(var moe) = part else { return part }
            moe.losses = RouterLosses()
            return .moe(moe)
        }
        let precision = command.options.precision.value
        let model = try Transformer(configuration, backend: backend, precision: precision, isTrained: true)
        try model.store.initialize(seed: 0, backend: backend)
        let optimizer = try AdamW(model.store, configuration: AdamW.Configuration(), seed: 0, backend: backend)
        let training = TrainingConfiguration(steps: 1 << 30, batch: command.batch, precision: precision, clipNorm: 0)
        self.command = command
        self.configuration = configuration
        self.backend = backend
        trainStep = TrainStep(model: model, optimizer: optimizer, backend: backend, configuration: training, seed: 0)
        parameters = configuration.parameterCounts().total
        let stream = RandomStream(seed: 4, purpose: .dataOrder)
        let (rows, width) = (command.batch, command.sequence + 1)
        batches = (0..<16).map { batch in
            let ids = (0..<rows * width).map { place in
                Int32(stream.word(at: UInt64(batch * rows * width + place)) % UInt32(configuration.vocabulary))
            }
            let row = { (first: Int) in (0..<rows).flatMap { ids[$0 * width + first..<$0 * width + first + width - 1] }
            }
            return TokenBatch(inputs: row(0), targets: row(1))
        }
    }

    /// Steps one behind the other, as a run takes them: the device is given the next while the host waits for the last.
    mutating func block(_ steps: Int, _ trace: Trace? = nil) throws -> Block {
        let allocations = backend.allocator.statistics.systemAllocations
        let waits = hostWaits
        var queue = StepQueue<EnqueuedStep>()
        var seconds: [Double] = []
        var loss: Float = 0
        var enqueueing = Double.infinity
        func look() throws {
            while let (step, time) = queue.next() {
                loss = try step.result().loss
                seconds.append(time)
            }
        }
        for _ in 0..<steps {
            queue.begin()
            try trace.span("step \(count + 1)", .step) {
                let (elapsed, step) = try timed { try enqueue(trace) }
                enqueueing = min(enqueueing, elapsed)
                queue.append(step)
                try trace.span("read back", .phase) { try queue.advance(isShown: false) }
            }
            try look()
        }
        try queue.drain()
        try look()
        let statistics = backend.allocator.statistics
        return Block(
            precision: command.options.precision, threads: command.options.threads, parameters: parameters,
            tokens: command.batch * command.sequence, seconds: seconds, loss: loss, peakBytes: statistics.totalPeak,
            heldBytes: statistics.heldPeak, systemAllocations: statistics.systemAllocations - allocations,
            flopsPerToken: configuration.flopsPerToken(
                meanContext: configuration.meanContext(sequence: command.sequence)
            ).training,
            peak: (command.peakTflops ?? (backend is CUDABackend ? 989 : nil)).map { $0 * 1e12 },
            host: waits.map {
                Block.Host(waits: Double((hostWaits ?? 0) - $0) / Double(steps), enqueueing: enqueueing)
            })
    }

    private mutating func enqueue(_ trace: Trace?) throws -> EnqueuedStep {
        count += 1
        let batch = batches[(count - 1) % batches.count]
        return try trainStep.enqueue(
            step: count, sequenceLength: command.sequence, learningRate: 3e-4, trace: trace
        ) { [length = command.sequence] in batch[$0.lowerBound * length..<$0.upperBound * length] }
    }

    /// How often the host has waited for the device; `nil` for the processor, which is the host.
    private var hostWaits: Int? { (backend as? CUDABackend)?.synchronizations }

    /// What a block of steps took; keys are those of the peer.
    struct Block {
        let precision: BenchPrecision
        let threads: Int
        let parameters: Int
        let tokens: Int
        let seconds: [Double]
        let loss: Float
        let peakBytes: Int
        /// What was taken from the device or the system at most, bytes kept for reuse included.
        let heldBytes: Int
        let systemAllocations: Int
        /// Model FLOPs, forward and backward.
        let flopsPerToken: Double
        /// FLOP/s that MFU is a share of.
        let peak: Double?
        /// What the host does beside a device; `nil` on the processor.
        let host: Host?

        struct Host {
            /// Waits for the device, for each step.
            let waits: Double
            /// Seconds of giving the device a step, the least: far ahead of it, the host is held up by a full queue.
            let enqueueing: Double
        }

        private var rate: Double { Double(tokens) / median(seconds) }
        private var mfu: Double? { peak.map { flopsPerToken * rate / $0 } }

        func object(_ more: [(String, JSONText)] = []) -> JSONText {
            .object(
                [
                    ("program", .string("apus")), ("version", .string(ApusCommand.configuration.version)),
                    ("threads", .integer(threads)), ("dtype", .string(precision.rawValue)),
                    ("parameters", .integer(parameters)),
                    ("tokens_per_step", .integer(tokens)), ("median_seconds", .number(median(seconds))),
                    ("tokens_per_second", .number(rate)), ("step_seconds", .array(seconds.map { .number($0) })),
                    ("loss", .number(Double(loss))), ("peak_rss_bytes", .integer(peakResidentBytes())),
                    ("peak_bytes", .integer(peakBytes)), ("held_bytes", .integer(heldBytes)),
                    ("system_allocations", .integer(systemAllocations)),
                    ("flops_per_token", .number(flopsPerToken)), ("tflops", .number(flopsPerToken * rate / 1e12)),
                    ("mfu", .optional(mfu) { .number($0) }),
                ]
                    + (host.map {
                        [
                            ("host_waits_per_step", .number($0.waits)),
                            ("host_enqueue_seconds", .number($0.enqueueing)),
                        ]
                    } ?? []) + more)
        }

        var text: String {
            let steps = seconds.enumerated().map { "step \($0 + 1)  \(fixed($1, 4)) s" }
            let host =
                host.map {
                    [
                        "host enqueues a step in \(fixed($0.enqueueing * 1e3, 1)) ms; waits for the device: "
                            + "\(fixed($0.waits, 2)) for each step"
                    ]
                } ?? []
            return
                (steps + [
                    "\(grouped(parameters)) parameters, \(precision.rawValue), \(threads) threads: median "
                        + "\(fixed(median(seconds), 4)) s, \(fixed(rate, 0)) tokens/s, loss \(fixed(Double(loss), 4))",
                    "model FLOPs: \(fixed(flopsPerToken * rate / 1e12, 2)) TFLOP/s"
                        + (mfu.map { ", \(fixed($0 * 100, 1)) % of \(fixed((peak ?? 0) / 1e12, 0))" } ?? ""),
                    "memory: \(formatBytes(peakBytes)) of tensors, \(formatBytes(heldBytes)) held, "
                        + "\(formatBytes(peakResidentBytes())) resident at most, "
                        + "\(systemAllocations) system allocations in timed steps",
                ] + host).joined(separator: "\n")
        }
    }
}
