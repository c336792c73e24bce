import ApusData
import ApusExperts
public import ApusKernels
import ApusOptim

/// The same training on two backends, step by step, the second with the routing of the first.
///
/// Without that, a token whose two best experts are nearly equal goes elsewhere on the other backend sooner or later, and
/// the runs part for a reason that says nothing about either.
///
/// 1. Both begin with the weights that follow from the seed, and read the same sequences.
/// 2. The reference takes a step and records its routing, a trace for each micro-batch.
/// 3. The other takes the same step and replays it. Scores, weights and losses are formed from its own numbers.
public struct DeviceComparison {
    /// A number that both runs came to.
    public struct Pair: Sendable {
        /// What the reference came to.
        public let reference: Float
        /// What the other backend came to.
        public let other: Float

        /// How far the other is from the reference, as a part of that; infinite where either is no finite number.
        public var difference: Double {
            let distance = abs(Double(other) - Double(reference))
            guard distance.isFinite else { return .infinity }
            return distance == 0 ? 0 : distance / abs(Double(reference))
        }
    }

    /// What one step came to.
    public struct Step: Sendable {
        /// The step, from 1.
        public let step: Int
        /// Mean loss over the target tokens, nats.
        public let loss: Pair
        /// Norm of all gradients before clipping.
        public let gradientNorm: Pair
        /// Where the other backend's numbers stopped being finite; `nil` when they are. There is no step after it.
        public let failure: NonFiniteError?

        /// The larger of both relative differences.
        public var difference: Double { max(loss.difference, gradientNorm.difference) }
    }

    /// The run that is compared with.
    let reference: TrainStep
    /// The run that replays its routing.
    let other: TrainStep
    private let recipes: (reference: Recipe, other: Recipe)
    private let data: TrainingData
    private var taken = 0

    /// Two runs from their beginning. Nothing is evaluated, nothing is written.
    ///
    /// - Parameters:
    ///   - recipe: What is trained.
    ///   - reference: Where the run is that the other is compared with.
    ///   - other: Where the other run is.
    ///   - otherRecipe: What the other trains, if not the same: model, data and the cut of the batch are those of `recipe`.
    /// - Throws: ``DeviceComparisonError``, ``DataError``, ``FileError``, ``TensorError``; what a device throws.
    public init(
        _ recipe: Recipe, on reference: any Backend, and other: any Backend, otherRecipe: Recipe? = nil
    ) throws {
        recipes = (recipe, otherRecipe ?? recipe)
        let different = Self.keysThatDiffer(recipes.reference, recipes.other)
        guard different.isEmpty else { throw DeviceComparisonError(keys: different) }
        var trained = recipe
        trained.training.evaluateEvery = 0
        data = try TrainingData(trained)
        self.reference = try TrainStep(recipes.reference, backend: reference)
        self.other = try TrainStep(recipes.other, backend: other)
    }

    /// Takes the next step on both.
    ///
    /// - Throws: ``NonFiniteError`` when the reference's numbers are not finite; ``TensorError``, ``DataError``; what a
    ///   device throws.
    public mutating func next() throws -> Step {
        taken += 1
        let traces = Dictionary(uniqueKeysWithValues: reference.microBatches.map { ($0, RoutingTrace()) })
        let (source, target) = (reference.backend, other.backend)
        let expected = try run(reference, recipes.reference) { traces[$0] }
        do {
            let found = try run(other, recipes.other) { sequences in
                guard let trace = traces[sequences] else { preconditionFailure("both runs cut the batch alike") }
                return try trace.replay(from: source, on: target)
            }
            return Step(
                step: taken, loss: Pair(reference: expected.loss, other: found.loss),
                gradientNorm: Pair(reference: expected.gradientNorm, other: found.gradientNorm), failure: nil)
        } catch let failure as NonFiniteError {
            return Step(
                step: taken, loss: Pair(reference: expected.loss, other: failure.loss),
                gradientNorm: Pair(reference: expected.gradientNorm, other: .nan), failure: failure)
        }
    }

    private func run(
        _ trainStep: TrainStep, _ recipe: Recipe, routing: @escaping TrainStep.RoutingSource
    ) throws -> TrainStep.Result {
        let first = (taken - 1) * recipe.training.batch
        return try trainStep(
            step: taken, sequenceLength: recipe.data.sequenceLength,
            learningRate: recipe.training.learningRate.rate(step: taken), routing: routing
        ) { [stream = data.stream] in try stream.sequences(first + $0.lowerBound..<first + $0.upperBound) }
    }

    /// The keys that have to be the same for the routing of one run to be one of the other, and are not.
    private static func keysThatDiffer(_ one: Recipe, _ other: Recipe) -> [String] {
        [
            ("model", one.model == other.model), ("data", one.data == other.data),
            ("training.batch", one.training.batch == other.training.batch),
            ("training.micro_batch", one.training.microBatch == other.training.microBatch),
            ("training.routing_group", one.training.routingGroup == other.training.routingGroup),
        ].filter { !$0.1 }.map(\.0)
    }
}

/// Two recipes with which the routing of one run cannot be replayed in the other.
public struct DeviceComparisonError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The keys, or groups of keys, that differ.
    public let keys: [String]

    /// What was wrong, and what would work.
    public var description: String {
        """
        \(keys.joined(separator: " and ")) \(keys.count == 1 ? "differs" : "differ") between the two runs, so the routing \
        of one cannot be replayed in the other; give both the same, with --set
        """
    }
}
