import ApusCollectives
import ApusData
import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusParallel
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusTraining

/// What the ranks of a step have to agree on beside gradients.
@Suite struct StepRanksTests {
    private static let layout = LayoutCase(
        model: CheckpointLayoutTests.model, tensor: 2, expert: .uniform(2), data: 2)

    /// What one rank saw of a step that cannot be taken.
    private struct Refused: Sendable {
        var place: String?
        var isWeight = false
        var step = 0
        var changed: [String] = []
    }

    /// A parameter of which one rank spoils its part: an expert that two ranks have, a part of a matrix, and a vector that
    /// all have.
    @Test(arguments: [
        ("model.layers.2.mlp.experts.3.down_proj.weight", 3), ("model.layers.0.self_attn.o_proj.weight", 1),
        ("model.norm.weight", 2),
    ])
    func `a weight that is no number on one rank holds the step back on all`(_ name: String, _ spoiled: Int) throws {
        let found = try Self.layout.run { rank in
            _ = try rank.train(1...1)
            let store = rank.trainStep.model.store
            if rank.world.rank == spoiled {
                let parameter = try #require(store[name], "rank \(spoiled) has a part of it")
                try parameter.withWeights(on: rank.backend.stream) { $0.pointer(to: Float.self)[1] = .nan }
            }
            let before = try rank.elements()
            var refused = Refused()
            do {
                _ = try rank.train(2...2)
            } catch let error as NonFiniteError {
                refused = Refused(place: error.place, isWeight: error.isWeight, step: error.step)
            }
            let after = try rank.elements()
            refused.changed = before.values.keys.filter { before.values[$0] != after.values[$0] }
            return refused
        }
        for refused in found {
            #expect(refused.place?.hasSuffix(" weights of \(name)") == true, "\(refused)")
            #expect(refused.place == found[0].place)
            #expect(refused.isWeight && refused.step == 2)
            // Ranks collect each other's shares of it; nothing was computed from it.
            #expect(Set(refused.changed).isSubset(of: ["weights.\(name)"]))
        }
    }

    /// Values so large that a product of them is not finite, in the part of one of two tensor ranks.
    @Test(arguments: [0, 1])
    func `an overflow on some ranks is named alike on all`(_ spoiled: Int) throws {
        let name = "model.layers.1.mlp.down_proj.weight"
        let found = try Self.layout.run { rank in
            if rank.world.rank % Self.layout.tensor == spoiled {
                let weights = try #require(rank.trainStep.model.store[name])
                try weights.withWeights(on: rank.backend.stream) { tensor in
                    for place in 0..<tensor.count { tensor.pointer(to: Float.self)[place] = 3e38 }
                }
            }
            do {
                _ = try rank.train(1...1)
                return "nothing"
            } catch let error as NonFiniteError {
                return error.place
            }
        }
        #expect(found == Array(repeating: "the feed-forward part of layer 1", count: 4))
    }

    /// Sequences that neither micro-batches nor ranks divide.
    @Test(arguments: [1, 3, 8, 11], [1, 4])
    func `the held-out loss is that of one rank`(sequences: Int, microBatch: Int) throws {
        var generator = SeededGenerator(seed: 3)
        let tokens = (0...sequences * 16).map { _ in Int32.random(in: 0..<40, using: &generator) }
        let loss: @Sendable (CheckpointRank) throws -> Double = { rank in
            let stream = try SequenceStream(
                tokens[...], sequenceLength: 16, shuffleSeed: nil, path: "held-out", part: "held-out")
            #expect(stream.count == sequences)
            return try rank.trainStep.evaluate(stream, batches: 100)
        }
        var (alone, many) = (CheckpointLayoutTests.alone, Self.layout)
        (alone.microBatch, many.microBatch, many.data) = (microBatch, microBatch, 2)
        let expected = try alone.run(loss)[0]
        for found in try many.run(loss) {
            #expect(abs(found - expected) <= 1e-5 * expected, "\(found) instead of \(expected)")
        }
        // With a capacity for evaluation, of whose sizes ranks with fewer sequences say something else.
        for (order, bank) in [(TokenPolicy.DropOrder.position, ExpertBankKind.padded), (.random, .grouped)] {
            let limited = TrainingCase.decoder(
                TrainingCase.moe(
                    policy: .capacity(factor: 1, minimum: 1, order: order, evaluation: 0.6), bank: bank,
                    losses: RouterLosses(balance: 0.02)))
            (alone.model, many.model) = (limited, limited)
            let expected = try alone.run(loss)[0]
            for found in try many.run(loss) {
                #expect(abs(found - expected) <= 1e-5 * expected, "\(found) instead of \(expected)")
            }
        }
    }
}
