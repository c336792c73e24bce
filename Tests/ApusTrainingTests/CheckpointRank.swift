import ApusCollectives
import ApusData
import ApusKernels
import ApusModels
import ApusNN
import ApusOptim
import ApusParallel
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusTraining

/// One rank of a layout, with the model that it trains and saves.
struct CheckpointRank {
    let world: any Collective
    let trainStep: TrainStep
    let backend: CPUBackend
    private let sequenceLength: Int

    init(_ layout: LayoutCase, _ world: any Collective, seed: UInt64 = 9, memoryLimit: Int? = nil) throws {
        backend = CPUBackend(threadCount: 1, memoryLimit: memoryLimit)
        var recipe = layout.recipe
        recipe.seed = seed
        self.world = world
        sequenceLength = recipe.data.sequenceLength
        trainStep = try TrainStep(
            recipe, over: recipe.parallel.groups(recipe.layout(ranks: world.size), world: world),
            backend: backend)
    }

    func saver(_ checkpoints: CheckpointFolder, copyLimit: Int? = nil) throws -> CheckpointSaver {
        try CheckpointSaver(
            checkpoints, trainStep.model, trainStep.optimizer, over: world, copyLimit: copyLimit, backend: backend)
    }

    func load(_ checkpoints: CheckpointFolder, step: Int) throws {
        try checkpoints.load(
            step: step, into: trainStep.model, trainStep.optimizer, over: world, backend: backend)
    }

    func state(_ step: Int) -> TrainingState { TrainingState(step: step, dataChecksum: 1, settings: ["seed": "9"]) }

    /// Takes steps on batches that are a function of the step; their losses.
    func train(_ steps: ClosedRange<Int>) throws -> [Float] {
        try steps.map { step in
            var generator = SeededGenerator(seed: UInt64(step))
            let count = trainStep.configuration.batch * sequenceLength
            let tokens = (0...count).map { _ in Int32.random(in: 0..<40, using: &generator) }
            let batch = TokenBatch(inputs: Array(tokens.dropLast()), targets: Array(tokens.dropFirst()))
            return try trainStep(step: step, batch: batch, learningRate: 0.003).loss
        }
    }

    /// Every element of weights and state that is here, by tensor and place in the whole.
    func elements() throws -> Elements {
        var found = Elements()
        for piece in trainStep.model.store.weightPieces() {
            found.add("weights.\(piece.parameter.name)", piece.parameter, piece.elements, piece.tensor)
        }
        for piece in trainStep.optimizer.statePieces() {
            found.add(piece.name, piece.parameter, piece.elements, piece.tensor)
        }
        return found
    }
}

/// Bits of elements by tensor and place in the whole.
struct Elements: Sendable {
    private(set) var values: [String: [UInt32?]] = [:]
    /// Tensors of which two ranks have different bits.
    private(set) var contradictions: Set<String> = []

    mutating func add(_ name: String, _ parameter: Parameter, _ elements: Range<Int>, _ tensor: Tensor) {
        let bits = tensor.bits
        var whole = values[name] ?? Array(repeating: nil, count: parameter.shape.count)
        for run in parameter.runs(of: elements) {
            for offset in 0..<run.held.count {
                let value = bits[run.held.lowerBound - elements.lowerBound + offset]
                if let known = whole[run.whole + offset], known != value { contradictions.insert(name) }
                whole[run.whole + offset] = value
            }
        }
        values[name] = whole
    }

    /// What all ranks have.
    init(_ ranks: [Elements] = []) {
        for rank in ranks {
            contradictions.formUnion(rank.contradictions)
            for (name, bits) in rank.values {
                var whole = values[name] ?? Array(repeating: nil, count: bits.count)
                for (place, bit) in bits.enumerated() {
                    guard let bit else { continue }
                    if let known = whole[place], known != bit { contradictions.insert(name) }
                    whole[place] = bit
                }
                values[name] = whole
            }
        }
    }

    /// Tensors that differ from those of `other`, are missing, or have holes.
    func differences(from other: Elements) -> [String] {
        let names = Set(values.keys).union(other.values.keys)
        return names.filter { values[$0] != other.values[$0] || values[$0]?.contains(nil) != false }.sorted()
            + contradictions.union(other.contradictions).sorted()
    }
}

extension LayoutCase {
    var ranks: Int { tensor * data }

    /// Runs `body` on every rank.
    func run<Value: Sendable>(_ body: @escaping @Sendable (CheckpointRank) throws -> Value) throws -> [Value] {
        try InProcess.run(ranks: ranks) { world in try body(CheckpointRank(self, world)) }
    }

    /// Runs `body` on every rank, which begins with a checkpoint and not with its own weights.
    func resume<Value: Sendable>(
        _ checkpoints: CheckpointFolder, step: Int, _ body: @escaping @Sendable (CheckpointRank) throws -> Value
    ) throws -> [Value] {
        try InProcess.run(ranks: ranks) { world in
            // Other weights at first, so that one which is not loaded shows.
            let rank = try CheckpointRank(self, world, seed: 77)
            try rank.load(checkpoints, step: step)
            return try body(rank)
        }
    }
}
