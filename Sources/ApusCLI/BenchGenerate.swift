import ApusExperts
import ApusInference
import ApusKernels
import ApusModels
import ApusNN
import ApusTensor
import ArgumentParser
import Glibc

/// `apus bench generate`: reading prompts and generating from them.
struct BenchGenerate: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "generate", abstract: "Measure prefill and decode.",
        discussion: """
            Prefill is the pass that reads the prompts, up to the first token of each; decode is all that follows. Without \
            a checkpoint: a preset's model with random weights. Every step of decode reads the weights that its tokens meet \
            from memory, once for all of them; their bytes a second stand beside what the machine copies. For several \
            prompts, the experts that are met are those of as many tokens that choose at random.

            Example:
              apus bench generate --preset megablocks-moe-xs
              apus bench generate --batch 8 --prompt-length 128 --max-tokens 64
              apus bench generate ./OLMoE-1B-7B --precision bf16
              apus bench generate --preset olmoe-8-layers --batch 64 --precision bf16 --device cuda
            """)

    @Argument(help: "A checkpoint, a run, or a Hugging Face folder.")
    var checkpoint: String?

    @Option(help: "The preset, where no checkpoint is given.")
    var preset = "bench"

    @Option(help: "Prompts that run together.")
    var batch = 1

    @Option(help: "Tokens of each prompt.")
    var promptLength = 128

    @Option(help: "Tokens to generate for each.")
    var maxTokens = 64

    @OptionGroup var repeats: RoundOptions

    @Option(help: "Where to compute: auto, cpu or cuda.")
    var device = DeviceChoice.cpu
    @OptionGroup var options: BenchOptions

    func validate() throws {
        try requireSizes(("batch", batch), ("prompt-length", promptLength))
        try requireSizes(("max-tokens", maxTokens))
        if maxTokens < 2 { throw ValidationError("--max-tokens is \(maxTokens); it must be at least 2") }
    }

    func run() throws {
        let backend = try options.backend(on: device)
        let model = try model(backend)
        let context = model.configuration.maximumPositions
        guard promptLength + maxTokens <= context else {
            throw CommandError(
                "--prompt-length \(promptLength) and --max-tokens \(maxTokens) exceed the model's context of \(context)"
            )
        }
        let generator = try Generator(model, backend: backend, options: GenerationOptions(maximumTokens: maxTokens))
        let stream = RandomStream(seed: 5, purpose: .dataOrder)
        let prompts = (0..<batch).map { prompt in
            (0..<promptLength).map { place in
                Int32(
                    stream.word(at: UInt64(prompt * promptLength + place))
                        % UInt32(clamping: model.configuration.vocabulary))
            }
        }
        var (prefill, decode) = ([Double](), [Double]())
        for round in 0...(repeats.rounds ?? 3) {
            let clock = ContinuousClock()
            let begin = clock.now
            var first = begin
            var count = 0
            let (total, _) = try timed {
                try generator.generate(prompts) { _ in
                    count += 1
                    if count == batch { first = clock.now }
                }
            }
            let elapsed = (first - begin).components
            let reading = Double(elapsed.seconds) + Double(elapsed.attoseconds) * 1e-18
            guard round > 0 else { continue }
            prefill.append(Double(batch * promptLength) / reading)
            decode.append(Double(count - batch) / (total - reading))
        }
        try report(backend, median(prefill), median(decode), activeBytes: activeBytes(model.configuration))
    }

    /// Bytes of the weights that a step of decode meets, experts as many as tokens that choose at random are expected to.
    private func activeBytes(_ model: ModelConfiguration) -> Int {
        let counts = model.parameterCounts()
        let always = Double(counts.active - counts.activeExperts - counts.lookedUp)
        let met = model.feedForward.reduce(0.0) { sum, part in
            guard case .moe(let moe) = part else { return sum }
            let parameters = Double(model.width * moe.width * (moe.activation.inputsPerOutput + 1))
            let missed = pow(1 - Double(moe.servedChoices) / Double(moe.experts), Double(batch))
            return sum + parameters * Double(moe.experts) * (1 - missed)
        }
        return Int((always + met) * Double(options.precision.value.modelType.byteCount))
    }

    private func model(_ backend: any Backend) throws -> Transformer {
        if let checkpoint {
            return try Checkpoint(checkpoint).model.load(backend: backend, precision: options.precision.value)
        }
        let model = try Transformer(
            ModelConfiguration.preset(named: preset), backend: backend, precision: options.precision.value,
            isTrained: false)
        try model.store.initialize(seed: 0, backend: backend)
        return model
    }

    private func report(_ backend: any Backend, _ prefill: Double, _ decode: Double, activeBytes: Int) throws {
        let peak = backend.allocator.statistics.totalPeak
        var fields: [(String, JSONText)] = [
            ("batch", .integer(batch)), ("prompt_length", .integer(promptLength)),
            ("max_tokens", .integer(maxTokens)), ("prefill_tokens_per_second", .number(prefill)),
            ("decode_tokens_per_second", .number(decode)), ("peak_bytes", .integer(peak)),
        ]
        var lines = [
            [
                "run",
                "\(batch) prompts of \(promptLength) tokens, \(maxTokens) new ones each, \(options.precision.rawValue), "
                    + options.place(device),
            ],
            ["prefill", "\(fixed(prefill, 0)) tokens/s"], ["decode", "\(fixed(decode, 1)) tokens/s"],
            ["memory", "\(formatBytes(peak)) of tensors at most"],
        ]
        let (read, bandwidth) = (decode / Double(batch) * Double(activeBytes), try copySpeed(backend))
        fields += [
            ("device", .string(device.rawValue)), ("active_bytes", .integer(activeBytes)),
            ("active_bytes_per_second", .number(read)), ("memory_bytes_per_second", .number(bandwidth)),
            ("of_bandwidth", .number(read / bandwidth)),
        ]
        lines.append([
            "active weights",
            "\(formatBytes(activeBytes)) a step, \(fixed(read / 1e9, 1)) GB/s of \(fixed(bandwidth / 1e9, 1)): "
                + "\(fixed(read / bandwidth * 100, 0)) %",
        ])
        options.report("generate", fields) { table(lines, leftColumns: 2) }
    }
}
