import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusTensor

/// What a run tells of its steps: a line of `metrics.jsonl`, TensorBoard's scalars, progress and warnings.
final class RunLog {
    private let recipe: Recipe
    private let backend: any Backend
    private let metricsFile: MetricsFile
    private let eventFile: EventFile
    private let progress: ProgressLine
    private let peak: Double
    private var secondsPerStep: Double?
    private var monitor = LoadMonitor()
    /// The loads of all experts over the steps told of.
    private(set) var table = LoadTable()
    /// The last step that has its line.
    private(set) var lastStep: Int

    /// Opens the files for steps after `step` of a run on `ranks` ranks.
    init(
        _ recipe: Recipe, folder: String, afterStep step: Int, ranks: Int, progress: ProgressLine, backend: any Backend
    ) throws {
        self.recipe = recipe
        self.backend = backend
        self.progress = progress
        lastStep = step
        metricsFile = try MetricsFile(path: "\(folder)/metrics.jsonl", afterStep: step)
        eventFile = try EventFile(folder: "\(folder)/tensorboard", afterStep: step, of: recipe.training.steps)
        // Every rank computes with as much.
        peak = Double(ranks) * (try MachineSpeed.peak(recipe.training.precision.modelType, backend: backend))
    }

    /// Model FLOPs of training on one of the `tokens` of a step.
    private func flops(_ routing: RoutingSummary, tokens: Double) -> Double {
        // K experts compute a token, but what an annealed gate leaves of them changes from step to step.
        let annealed = routing.layers.filter { recipe.model.moe(layer: $0.layer)?.router.annealing != nil }
        let choices = annealed.map { ($0.layer, Double($0.choices.reduce(0, +)) / tokens) }
        let context = recipe.model.meanContext(sequence: recipe.data.sequenceLength)
        return recipe.model.flopsPerToken(
            meanContext: context, choices: Dictionary(uniqueKeysWithValues: choices)
        ).training
    }

    /// What there is to tell of a step that took `seconds`.
    func metrics(_ result: TrainStep.Result, step: Int, learningRate: Double, seconds: Double) -> StepMetrics {
        let tokens = Double(recipe.training.batch * recipe.data.sequenceLength)
        let flops = flops(result.routing, tokens: tokens)
        return StepMetrics(
            step: step, loss: Double(result.loss), divergence: result.divergence.map(Double.init),
            balanceLoss: result.routing.balance, zLoss: result.routing.z,
            droppedFraction: result.routing.droppedFraction, gradientNorm: Double(result.gradientNorm),
            learningRate: learningRate, tokensPerSecond: tokens / seconds, mfu: flops * tokens / seconds / peak,
            peakBytes: backend.allocator.statistics.totalPeak, stepSeconds: seconds,
            expertShares: result.routing.layers.map { ($0.layer, $0.shares) })
    }

    /// Tells of a step, the one after ``lastStep``.
    func append(_ metrics: StepMetrics, _ routing: RoutingSummary) throws {
        let seconds = metrics.stepSeconds
        secondsPerStep = secondsPerStep.map { 0.9 * $0 + 0.1 * seconds } ?? seconds
        try metricsFile.append(metrics)
        try eventFile.append(metrics)
        lastStep = metrics.step
        table.add(routing)
        let warnings = monitor.observe(routing) { recipe.model.moe(layer: $0)?.leastExperts ?? 1 }
        for warning in warnings { progress.note("warning: \(warning)") }
        let worst = routing.layers.max { $0.peakToMean < $1.peakToMean }
        let left = Double(recipe.training.steps - metrics.step)
        progress.show(metrics, remaining: (secondsPerStep ?? seconds) * left, worst: worst)
    }
}
