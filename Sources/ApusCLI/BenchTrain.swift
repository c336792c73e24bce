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
            block of steps.

            Example:
              apus bench train --precision bf16 --steps 20
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

    @OptionGroup var options: BenchOptions

    func validate() throws {
        try requireSizes(("steps", steps), ("batch", batch), ("sequence", sequence))
        if warmup != 0 { try requireSizes(("warmup", warmup)) }
    }

    func run() throws {
        let backend = options.backend()
        var bench = try TrainBench(self, backend)
        for _ in 0..<max(warmup, 0) { _ = try bench.step() }
        backend.allocator.resetPeaks()
        guard interactive else {
            let block = try bench.block(steps)
            return print(options.json ? "\(block.object)" : block.text)
        }
        print("ready \(bench.parameters) parameters")
        flushOutput()
        while let line = readLine() {
            let word = line.filter { $0 != " " }
            if word == "quit" { break }
            guard let count = word.isEmpty ? steps : Int(word), count >= 1 else {
                throw CommandError("'\(line)' is no number of steps; give a number from 1, an empty line, or quit")
            }
            print(try bench.block(count).object)
            flushOutput()
        }
    }
}

/// The model, its optimizer and its data; `step` is what is timed.
private struct TrainBench {
    private let command: BenchTrain
    private let backend: CPUBackend
    private let trainStep: TrainStep
    private let batches: [TokenBatch]
    private var count = 0
    /// Parameters of the model.
    let parameters: Int

    init(_ command: BenchTrain, _ backend: CPUBackend) throws {
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

    /// One step: forward, backward, update.
    mutating func step() throws -> (seconds: Double, loss: Float) {
        count += 1
        let batch = batches[(count - 1) % batches.count]
        let (seconds, result) = try timed { try trainStep(step: count, batch: batch, learningRate: 3e-4) }
        return (seconds, result.loss)
    }

    mutating func block(_ steps: Int) throws -> Block {
        let before = backend.allocator.statistics.systemAllocations
        var seconds: [Double] = []
        var loss: Float = 0
        for _ in 0..<steps {
            let step = try step()
            seconds.append(step.seconds)
            loss = step.loss
        }
        let statistics = backend.allocator.statistics
        return Block(
            precision: command.options.precision, threads: backend.pool.threadCount, parameters: parameters,
            tokens: command.batch * command.sequence, seconds: seconds, loss: loss, peakBytes: statistics.totalPeak,
            systemAllocations: statistics.systemAllocations - before)
    }

    /// What a block of steps took; keys are those of the peer.
    struct Block {
        let precision: ModelPrecision
        let threads: Int
        let parameters: Int
        let tokens: Int
        let seconds: [Double]
        let loss: Float
        let peakBytes: Int
        let systemAllocations: Int

        private var rate: Double { Double(tokens) / median(seconds) }

        var object: JSONText {
            .object([
                ("program", .string("apus")), ("version", .string(ApusCommand.configuration.version)),
                ("threads", .integer(threads)), ("dtype", .string(precision.rawValue)),
                ("parameters", .integer(parameters)),
                ("tokens_per_step", .integer(tokens)), ("median_seconds", .number(median(seconds))),
                ("tokens_per_second", .number(rate)), ("step_seconds", .array(seconds.map { .number($0) })),
                ("loss", .number(Double(loss))), ("peak_rss_bytes", .integer(peakResidentBytes())),
                ("peak_bytes", .integer(peakBytes)), ("system_allocations", .integer(systemAllocations)),
            ])
        }

        var text: String {
            let steps = seconds.enumerated().map { "step \($0 + 1)  \(fixed($1, 4)) s" }
            return
                (steps + [
                    "\(grouped(parameters)) parameters, \(precision.rawValue), \(threads) threads: median "
                        + "\(fixed(median(seconds), 4)) s, \(fixed(rate, 0)) tokens/s, loss \(fixed(Double(loss), 4))",
                    "memory: \(formatBytes(peakBytes)) of tensors, \(formatBytes(peakResidentBytes())) resident at most, "
                        + "\(systemAllocations) system allocations in timed steps",
                ]).joined(separator: "\n")
        }
    }
}
