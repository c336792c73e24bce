import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusOptim

extension Recipe {
    /// The whole recipe as YAML, every default written out; reading it gives an equal recipe.
    public func resolvedYAML() -> String {
        var writer = YAMLWriter()
        writer.key("seed", "\(seed)")
        writer.group("model") { writer in write(model, to: &writer) }
        writer.group("data") { writer in write(data, to: &writer) }
        writer.group("training") { writer in write(training, to: &writer) }
        if let distillation {
            writer.group("distillation") { writer in write(distillation, to: &writer) }
        }
        writer.group("layout") { writer in writer.layout(parallel) }
        writer.group("output") { writer in
            writer.key("save_every", "\(output.saveEvery)")
            writer.key("keep", "\(output.keep)")
            writer.key("log_every", "\(output.logEvery)")
        }
        return writer.text
    }

    private func write(_ data: DataConfiguration, to writer: inout YAMLWriter) {
        if data.sources.count == 1, data.sources[0].weight == nil {
            writer.key("path", YAMLWriter.quoted(data.path))
        } else {
            let list = data.sources.map { source in
                "{path: \(YAMLWriter.quoted(source.path))" + (source.weight.map { ", weight: \($0)" } ?? "") + "}"
            }
            writer.key("sources", "[\(list.joined(separator: ", "))]")
            writer.key("temperature", "\(data.temperature)")
        }
        writer.key("vocabulary", data.vocabulary.rawValue)
        writer.key("sequence_length", "\(data.sequenceLength)")
        writer.key("held_out", "\(data.heldOut)")
        writer.key("shuffle", "\(data.shuffle)")
        writer.key("document_mask", "\(data.documentMask)")
        writer.key("verify", "\(data.verify)")
    }

    private func write(_ training: TrainingConfiguration, to writer: inout YAMLWriter) {
        if let start = training.start { writer.key("start", YAMLWriter.quoted(start)) }
        writer.key("steps", "\(training.steps)")
        writer.key("batch", "\(training.batch)")
        writer.key("micro_batch", "\(training.microBatch)")
        writer.key("precision", training.precision.rawValue)
        writer.group("optimizer") { writer in
            let optimizer = training.optimizer
            writer.key("learning_rate", "\(optimizer.learningRate)")
            writer.key("beta1", "\(optimizer.beta1)")
            writer.key("beta2", "\(optimizer.beta2)")
            writer.key("epsilon", "\(optimizer.epsilon)")
            writer.key("weight_decay", "\(optimizer.weightDecay)")
        }
        writer.group("schedule") { writer in
            let schedule = training.schedule
            writer.key("kind", schedule.kind.rawValue)
            writer.key("warmup_steps", "\(schedule.warmupSteps)")
            if schedule.kind != .constant { writer.key("final_fraction", "\(schedule.finalFraction)") }
            if schedule.kind == .constantThenDecay { writer.key("decay_steps", "\(schedule.decaySteps)") }
        }
        writer.key("clip_norm", "\(training.clipNorm)")
        writer.key("checkpointing", "\(training.checkpointing)")
        writer.key("routing_group", "\(training.routingGroup)")
        writer.key("balance_group", "\(training.balanceGroup)")
        writer.key("evaluate_every", "\(training.evaluateEvery)")
        writer.key("evaluate_batches", "\(training.evaluateBatches)")
        writer.key("deterministic", "\(training.deterministic)")
        if let threads = training.threads { writer.key("threads", "\(threads)") }
        if let limit = training.memoryLimit { writer.key("memory_limit", "\(limit)") }
    }

    private func write(_ distillation: DistillationConfiguration, to writer: inout YAMLWriter) {
        writer.key("teacher", YAMLWriter.quoted(distillation.teacher))
        writer.key("weight", "\(distillation.weight)")
        writer.key("temperature", "\(distillation.temperature)")
        if let until = distillation.until {
            writer.key("until", "\(until)")
            writer.key("ending", distillation.ending.rawValue)
        }
        writer.key("start", distillation.start.rawValue)
        if let layers = distillation.layers { writer.key("layers", "\(layers)") }
    }

    private func write(_ model: ModelConfiguration, to writer: inout YAMLWriter) {
        if let patches = model.patches {
            writer.group("patches") { writer in
                writer.key("height", "\(patches.height)")
                writer.key("width", "\(patches.width)")
                writer.key("channels", "\(patches.channels)")
                writer.key("size", "\(patches.size)")
                writer.key("classes", "\(model.vocabulary)")
            }
        }
        writer.key("vocabulary", "\(model.vocabulary)")
        writer.key("layers", "\(model.layers)")
        writer.key("width", "\(model.width)")
        writer.key("heads", "\(model.heads)")
        writer.key("key_value_heads", "\(model.keyValueHeads)")
        writer.key("head_width", "\(model.headWidth)")
        writer.key("maximum_positions", "\(model.maximumPositions)")
        writer.key("norm", model.norm.rawValue)
        writer.key("norm_epsilon", "\(model.normEpsilon)")
        writer.group("position") { writer in
            switch model.position {
            case .learned:
                writer.key("kind", PositionKind.learned.rawValue)
            case .rotary(let theta):
                writer.key("kind", PositionKind.rotary.rawValue)
                writer.key("theta", "\(theta)")
                if let yarn = model.yarn { writer.yarn(yarn) }
            }
        }
        writer.key("query_key_norm", model.queryKeyNorm.rawValue)
        writer.key("attention_bias", "\(model.attentionBias)")
        if let clip = model.attentionClip { writer.key("attention_clip", "\(clip)") }
        if let window = model.slidingWindow { writer.key("sliding_window", "\(window)") }
        if let latent = model.latent { writer.latent(latent) }
        if let convolution = model.convolution { writer.convolution(convolution) }
        writer.key("activation", model.activation.rawValue)
        let dense = model.feedForward.lazy.compactMap { if case .dense(let width) = $0 { width } else { nil } }.first
        if let dense { writer.key("feed_forward_width", "\(dense)") }
        writer.key("tied_embeddings", "\(model.tiedEmbeddings)")
        writer.key("initial_deviation", "\(model.initialDeviation)")
        if let scale = model.initialScale { writer.key("initial_scale", "\(scale)") }
        let places = model.feedForward.indices.filter { model.moe(layer: $0) != nil }
        if let first = places.first, let mixture = model.moe(layer: first) {
            writer.group("experts") { writer in
                let counts = places.compactMap { model.moe(layer: $0)?.experts }
                writer.key("count", Set(counts).count == 1 ? "\(counts[0])" : "\(counts)")
                if places.count == model.layers {
                    writer.key("every", "1")
                } else {
                    writer.key("layers", "\(places)")
                }
                let share = places.prefix { $0 == first || model.moe(layer: $0)?.parametersOf == first }.count
                if share > 1 { writer.key("share", "\(share)") }
                write(mixture, to: &writer)
            }
        }
    }

    private func write(_ mixture: MoEConfiguration, to writer: inout YAMLWriter) {
        writer.key("choices", "\(mixture.choices)")
        writer.key("width", "\(mixture.width)")
        writer.key("activation", mixture.activation.rawValue)
        writer.group("router") { writer in
            writer.key("scoring", mixture.router.scoring.rawValue)
            writer.key("renormalize", "\(mixture.router.renormalizes)")
            writer.key("weight_scale", "\(mixture.router.weightScale)")
            writer.key("jitter", "\(mixture.router.jitter)")
            writer.key("gumbel", "\(mixture.router.gumbel)")
            writer.key("bias_rate", "\(mixture.router.biasRate)")
            writer.parts(of: mixture.router)
        }
        switch mixture.policy {
        case .dropless:
            writer.key("policy", "dropless")
        case .capacity(let factor, let minimum, let order, let evaluation):
            writer.group("policy") { writer in
                writer.key("capacity", "\(factor)")
                writer.key("minimum", "\(minimum)")
                writer.key("order", order.rawValue)
                if let evaluation { writer.key("evaluation", "\(evaluation)") }
            }
        }
        writer.key("bank", mixture.bank.rawValue)
        writer.key("block_size", "\(mixture.blockSize)")
        writer.group("losses") { writer in
            writer.key("balance", "\(mixture.losses.balance)")
            writer.key("scope", mixture.losses.scope.rawValue)
            writer.key("z", "\(mixture.losses.z)")
            writer.key("importance", "\(mixture.losses.importance)")
        }
        writer.key("shared_width", "\(mixture.sharedWidth)")
        writer.key("shared_combination", mixture.sharedCombination.rawValue)
        if let shortcut = mixture.shortcut {
            writer.group("shortcut") { writer in
                writer.key("position", "\(shortcut.position.rawValue)")
                writer.key("dual", "\(shortcut.isDual)")
            }
        }
        writer.key("residual", "\(mixture.isResidual)")
        writer.key("dropout", "\(mixture.dropout)")
    }
}

/// Writes block-style YAML, one key a line.
struct YAMLWriter {
    private(set) var text = ""
    private var depth = 0

    mutating func key(_ name: String, _ value: String) {
        text += String(repeating: "  ", count: depth) + "\(name): \(value)\n"
    }

    mutating func group(_ name: String, _ body: (inout YAMLWriter) -> Void) {
        text += String(repeating: "  ", count: depth) + "\(name):\n"
        depth += 1
        body(&self)
        depth -= 1
    }

    /// Any text as one double-quoted scalar.
    static func quoted(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\t": result += "\\t"
            default:
                let isPlain =
                    scalar.value >= 0x20 && (scalar.isASCII ? scalar.value < 0x7F : scalar.properties.isAlphabetic)
                let digits = String(scalar.value, radix: 16, uppercase: true)
                result += isPlain ? String(scalar) : "\\U" + String(repeating: "0", count: 8 - digits.count) + digits
            }
        }
        return result + "\""
    }
}
