import ApusExperts
import ApusModels
import ApusNN
import ApusTraining

/// What a run adds up to.
struct RunTotals {
    private(set) var seconds = 0.0
    private(set) var tokens = 0.0
    private(set) var peakBytes: Double?
    private(set) var lastLosses: [Double] = []
    private(set) var lastHeldOut: Double?
    private(set) var bestHeldOut: (step: Int, value: Double)?
    private(set) var experts: [Int] = []
    private var dropped = (sum: 0.0, count: 0)

    /// The mean share of dropped choices.
    var droppedFraction: Double? { dropped.count == 0 ? nil : dropped.sum / Double(dropped.count) }

    mutating func add(_ line: MetricsLine, step: Int) {
        if let stepSeconds = line[.stepSeconds], let rate = line[.tokensPerSecond] {
            seconds += stepSeconds
            tokens += rate * stepSeconds
        }
        peakBytes = line[.peakBytes].map { max($0, peakBytes ?? 0) } ?? peakBytes
        if let loss = line[.loss] {
            if lastLosses.count == RunSummary.lossWindow { lastLosses.removeFirst() }
            lastLosses.append(loss)
        }
        if let heldOut = line[.heldOutLoss] {
            lastHeldOut = heldOut
            if heldOut < bestHeldOut?.value ?? .infinity { bestHeldOut = (step, heldOut) }
        }
        if let share = line[.droppedFraction] { dropped = (dropped.sum + share, dropped.count + 1) }
        experts = line.loads.map(\.shares.count)
    }
}

/// The figures of one run in a report's table.
public struct RunSummary: Sendable {
    /// Steps that the last loss is the mean of.
    public static let lossWindow = 20

    /// The model in a few words; `nil` without its recipe.
    public let model: String?
    /// All parameters; `nil` without its recipe.
    public let parameters: Int?
    /// Parameters that a token uses; `nil` without its recipe.
    public let activeParameters: Int?
    /// Precision of the training; `nil` without its recipe.
    public let precision: String?
    /// The last step done.
    public let lastStep: Int
    /// Steps that the recipe asks for; `nil` without it.
    public let plannedSteps: Int?
    /// Tokens of the steps in the metrics.
    public let tokens: Double
    /// Training loss, mean of the last ``lossWindow`` steps, in nats per token.
    public let trainLoss: Double?
    /// Loss on held-out text, at its last evaluation.
    public let heldOutLoss: Double?
    /// The least loss on held-out text, and its step.
    public let bestHeldOut: (step: Int, value: Double)?
    /// Tokens over the seconds of the steps, evaluation and saving not counted.
    public let tokensPerSecond: Double?
    /// Seconds of all steps.
    public let seconds: Double
    /// Most bytes of tensors.
    public let peakBytes: Double?
    /// Mean share of dropped choices.
    public let droppedFraction: Double?

    init(_ totals: RunTotals, steps: [Int], recipe: Recipe?) {
        let counts = recipe?.model.parameterCounts()
        model = recipe.map { RunSummary.words(for: $0.model) }
        parameters = counts?.total
        activeParameters = counts?.active
        precision = recipe?.training.precision.rawValue
        lastStep = steps.last ?? 0
        plannedSteps = recipe?.training.steps
        tokens = totals.tokens
        trainLoss =
            totals.lastLosses.isEmpty ? nil : totals.lastLosses.reduce(0, +) / Double(totals.lastLosses.count)
        heldOutLoss = totals.lastHeldOut
        bestHeldOut = totals.bestHeldOut
        tokensPerSecond = totals.seconds > 0 ? totals.tokens / totals.seconds : nil
        seconds = totals.seconds
        peakBytes = totals.peakBytes
        droppedFraction = totals.droppedFraction
    }

    private static func words(for model: ModelConfiguration) -> String {
        let base = "\(model.layers) layers, width \(model.width)"
        let layers = (0..<model.layers).compactMap { model.moe(layer: $0) }
        guard let first = layers.first else { return "\(base), dense" }
        let experts = Set(layers.map(\.experts)).sorted()
        let range = experts.count > 1 ? "\(experts[0]) to \(experts[experts.count - 1])" : "\(first.experts)"
        let shortcut = first.shortcut.map { ", \($0.words)" } ?? ""
        return "\(base), \(range) experts of \(first.width), \(first.choices) for a token\(shortcut)"
    }
}
