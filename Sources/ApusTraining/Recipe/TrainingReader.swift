import ApusNN
import ApusOptim

/// Reads `training` and checks that its numbers go together.
struct TrainingReader {
    let section: Section
    let data: DataConfiguration

    private static let mostSteps = 1_000_000_000
    /// Tokens of a micro-batch, which is read as a whole: inputs and targets of so many take 2 GiB.
    private static let mostTokens = 1 << 28

    func training() -> TrainingConfiguration {
        let steps = section.integer("steps", 1...Self.mostSteps, example: 500)
        let batch = section.integer("batch", 1...1 << 20, example: 16)
        let microBatch = section.integer("micro_batch", 1...1 << 20, default: batch, example: batch)
        let routingGroup = section.integer("routing_group", 1...1 << 20, default: 1, example: 1)
        let balanceGroup = section.integer("balance_group", 1...1 << 20, default: routingGroup, example: routingGroup)
        checkGroups(batch: batch, microBatch: microBatch, routingGroup: routingGroup, balanceGroup: balanceGroup)
        let mostSequences = max(Self.mostTokens / data.sequenceLength, 1)
        section.require(
            microBatch <= mostSequences, "micro_batch", with: ["data.sequence_length", section.full("batch")],
            "is \(microBatch), with data.sequence_length \(data.sequenceLength) more than \(Self.mostTokens) tokens",
            "use at most \(mostSequences)")
        let evaluates = data.heldOut > 0
        let evaluateEvery = section.integer(
            "evaluate_every", 0...Self.mostSteps, default: evaluates ? 100 : 0, example: 100)
        section.require(
            evaluates || evaluateEvery == 0, "evaluate_every", with: ["data.held_out"],
            "is \(evaluateEvery), but data.held_out keeps no text", "use 0, or set data.held_out, for example to 0.05")
        return TrainingConfiguration(
            steps: steps, batch: batch, microBatch: microBatch,
            precision: section.choice("precision", default: Precision.bf16), optimizer: optimizer(),
            schedule: schedule(steps: steps), clipNorm: section.real("clip_norm", .nonNegative, default: 1, example: 1),
            checkpointing: section.flag("checkpointing", default: false), routingGroup: routingGroup,
            balanceGroup: balanceGroup, evaluateEvery: evaluateEvery,
            evaluateBatches: section.integer("evaluate_batches", 1...1_000_000, default: 8, example: 8),
            deterministic: section.flag("deterministic", default: true),
            threads: section.optionalInteger("threads", 1...1024, default: nil, example: 2),
            memoryLimit: section.bytes("memory_limit"),
            start: section.value("start") == nil
                ? nil : section.text("start", example: "the folder of a model or a run"))
    }

    private func optimizer() -> TrainingConfiguration.Optimizer {
        let section = section.section("optimizer")
        return TrainingConfiguration.Optimizer(
            learningRate: section.real("learning_rate", .positiveFloat, default: 1e-3, example: 1e-3),
            beta1: section.real("beta1", .belowOne, default: 0.9, example: 0.9),
            beta2: section.real("beta2", .belowOne, default: 0.95, example: 0.95),
            epsilon: section.real("epsilon", .positive, default: 1e-8, example: 1e-8),
            weightDecay: section.real("weight_decay", .nonNegative, default: 0.1, example: 0.1))
    }

    private func schedule(steps: Int) -> TrainingConfiguration.Schedule {
        let section = section.section("schedule")
        let kind = section.choice("kind", default: LearningRateSchedule.Kind.constant)
        let warmup = section.integer("warmup_steps", 0...Self.mostSteps, default: 0, example: 50)
        section.require(
            warmup <= steps, "warmup_steps", with: ["training.steps"], "is \(warmup), more than training.steps",
            "use at most \(steps)")
        let isConstant = kind == .constant
        if section.value("final_fraction") != nil {
            section.require(
                !isConstant, "final_fraction", with: [section.full("kind")], "has no meaning with kind constant",
                "remove it, or use kind cosine, linear or constant-then-decay")
        }
        let fraction = section.real("final_fraction", .share, default: isConstant ? 1 : 0.1, example: 0.1)
        let decays = kind == .constantThenDecay
        if section.value("decay_steps") != nil {
            section.require(
                decays, "decay_steps", with: [section.full("kind")], "has no meaning with kind \(kind.rawValue)",
                "remove it, or use kind constant-then-decay")
        }
        let room = max(0, steps - warmup)
        let decay = section.integer(
            "decay_steps", 0...Self.mostSteps, default: decays ? min(room, max(1, steps / 5)) : 0, example: 100)
        section.require(
            !decays || decay <= room, "decay_steps", with: ["training.steps", section.full("warmup_steps")],
            "is \(decay), more than the steps after warm-up", "use at most \(room)")
        return TrainingConfiguration.Schedule(
            kind: kind, warmupSteps: warmup, finalFraction: fraction, decaySteps: decays ? decay : 0)
    }

    /// Micro-batches divide the batch, and no group of sequences is cut by either.
    private func checkGroups(batch: Int, microBatch: Int, routingGroup: Int, balanceGroup: Int) {
        let keys = ["batch", "micro_batch", "routing_group", "balance_group"].map(section.full)
        section.require(
            balanceGroup % routingGroup == 0, "balance_group", with: keys,
            "is \(balanceGroup), no multiple of routing_group \(routingGroup)",
            "the nearest that works is \(nearestMultiple(of: routingGroup, to: balanceGroup))")
        let cause = balanceGroup == routingGroup ? "routing_group" : "balance_group"
        section.require(
            batch % balanceGroup == 0, "batch", with: keys, "is \(batch), no multiple of \(cause) \(balanceGroup)",
            "the nearest that works is \(nearestMultiple(of: balanceGroup, to: batch))")
        section.require(
            batch % microBatch == 0 && microBatch % balanceGroup == 0, "micro_batch", with: keys,
            batch % microBatch == 0
                ? "is \(microBatch), no multiple of \(cause) \(balanceGroup)"
                : "is \(microBatch), which does not divide batch \(batch)",
            "the nearest that works is \(nearestMicroBatch(to: microBatch, batch: batch, group: balanceGroup))")
    }

    private func nearestMicroBatch(to wanted: Int, batch: Int, group: Int) -> Int {
        stride(from: group, through: batch, by: group).filter { batch % $0 == 0 }.min {
            (abs($0 - wanted), $0) < (abs($1 - wanted), $1)
        } ?? batch
    }
}

/// The positive multiple of `unit` nearest to `value`, the smaller of two.
func nearestMultiple(of unit: Int, to value: Int) -> Int {
    let below = value / unit * unit
    return below > 0 && value - below <= unit - (value - below) ? below : below + unit
}
