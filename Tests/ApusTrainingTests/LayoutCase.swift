import ApusCollectives
import ApusData
import ApusExperts
import ApusModels
import ApusNN
import ApusParallel
import ApusTestSupport
import Testing

@testable import ApusTraining

/// A layout to verify: what is trained, and over which ranks.
struct LayoutCase: Sendable, CustomTestStringConvertible {
    var model: ModelConfiguration
    var tensor = 1
    var expert = LayoutConfiguration.ExpertDegree.uniform(1)
    var data: Int
    var expertTensor = true
    var order = LayoutConfiguration.Order.expertBeforeData
    var zero = ZeROStage.optimizerState
    var sequenceParallel = false
    var dropsDuplicates = true
    var fuses = true
    var checkpointing = false
    var keeps = true
    var ranksPerNode: Int?
    var batch = 8
    var microBatch = 8
    var routingGroup = 1
    var precision = Precision.f32
    var words = ""

    var testDescription: String {
        let configuration = parallel
        let layout = (try? configuration.layout.layout(ranks: tensor * data)).map { "\($0)" } ?? "no layout"
        return [layout, "ZeRO-\(zero.rawValue)", words, precision.rawValue].joined(separator: ", ")
    }

    var parallel: ParallelConfiguration {
        ParallelConfiguration(
            layout: LayoutConfiguration(
                tensor: tensor, expert: expert, data: data, expertTensor: expertTensor, order: order),
            zero: zero, sequenceParallel: sequenceParallel, dropsDuplicates: dropsDuplicates,
            fusesReduceScatter: fuses, keepsCollectives: keeps, ranksPerNode: ranksPerNode)
    }

    var recipe: Recipe {
        Recipe(
            seed: 9, model: model, data: DataConfiguration(path: "none", sequenceLength: 16),
            training: TrainingConfiguration(
                steps: 6, batch: batch, microBatch: microBatch, precision: precision,
                optimizer: .init(learningRate: 0.01), checkpointing: checkpointing, routingGroup: routingGroup),
            parallel: parallel)
    }

    /// Random sequences in which targets are to be ignored, on some ranks more than on others.
    static func batches(_ recipe: Recipe) -> [TokenBatch] {
        let length = recipe.data.sequenceLength
        return (1...3).map { step in
            var generator = SeededGenerator(seed: UInt64(step))
            let count = recipe.training.batch * length
            let tokens = (0...count).map { _ in Int32.random(in: 0..<40, using: &generator) }
            let targets = tokens.dropFirst().enumerated().map { index, id in
                index % 11 == 5 || index / length == 1 && index % 2 == 0 ? -100 : id
            }
            let inputs = tokens.dropLast().map { recipe.model.patches == nil ? $0 : 6 * $0 }
            return TokenBatch(inputs: inputs, targets: targets)
        }
    }

    func verify(
        _ wrap: @escaping @Sendable (any Collective) -> any Collective = { $0 }
    ) throws -> LayoutFindings {
        let recipe = recipe
        let batches = Self.batches(recipe)
        let layout = try recipe.layout(ranks: tensor * data)
        let reference = try LayoutReference(recipe, for: layout, batches: batches, threads: 1)
        return try InProcess.run(ranks: layout.ranks) { world in
            try LayoutComparison(
                recipe, reference: reference, over: recipe.parallel.groups(layout, world: wrap(world)), threads: 1)()
        }[0]
    }
}
