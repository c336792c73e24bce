import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusOptim
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusTraining

// Shape letters: T tokens, D model width, E experts, K choices per token.

/// A router that a program brings (`Transformer.init(..., router:)`, `Routing.make`) trains as the standard one does.
@Suite struct ForeignRouterTests {
    /// Deals choices out anew each time that it is asked, and learns their weights.
    ///
    /// A block that is computed twice computes the same only if the decision is replayed, not made again.
    private final class DealingRouter: Router {
        let experts: Int
        let choices: Int
        let gate: Parameter
        private(set) var deals = 0

        /// A gate (K, D) of its own.
        init(layer: Int, standard: TopKRouter) {
            experts = standard.experts
            choices = standard.choices
            gate = Parameter(
                "model.layers.\(layer).mlp.dealer.weight", Shape(choices, standard.weight.shape[1]), role: .router,
                layer: layer, initializer: .normal(deviation: 0.2))
        }

        var parameters: [Parameter] { [gate] }

        func route(_ x: Variable, layer: Int, _ context: MoEContext) throws -> Routing {
            let tape = context.forward.tape
            let allocator = tape.backend.allocator
            let tokens = x.shape[0]
            return try .make(experts: experts, layer: layer, context) {
                deals += 1
                return try allocator.integers(
                    (0..<tokens * choices).map { slot in
                        let (token, choice) = (slot / choices, slot % choices)
                        return (token * token + deals + choice) % experts
                    }, Shape(tokens, choices))
            } weigh: { _ in
                let weights = try Linear(weight: gate)(x, on: tape, outputType: .f32)
                // A loss of the router's own: it pulls all weights down evenly.
                let scale = 0.1 / Float(context.globalTokens)
                let pull = Array(repeating: scale, count: weights.shape.count)
                try tape.addRoot(weights, seed: allocator.tensor(pull, weights.shape))
                return weights
            }
        }
    }

    /// Three steps of two micro-batches; without decay, the first moments are the last step's gradients.
    private func train(
        checkpointing: Bool, precision: Precision = .f32
    ) throws -> (trainer: Trainer, results: [TrainStep.Result], deals: Int) {
        let training = TrainingCase.all[0]
        var configuration = training.training(precision)
        configuration.checkpointing = checkpointing
        var routers: [DealingRouter] = []
        let trainer = try Trainer(training.model, configuration, beta1: 0) { layer, standard in
            let router = DealingRouter(layer: layer, standard: standard)
            routers.append(router)
            return router
        }
        let results = try trainer.train(1...3)
        return (trainer, results, routers.reduce(0) { $0 + $1.deals })
    }

    @Test(arguments: [Precision.f32, .bf16])
    func `checkpointing replays its decisions and changes no bit`(_ precision: Precision) throws {
        let kept = try train(checkpointing: false, precision: precision)
        let again = try train(checkpointing: true, precision: precision)
        // Two MoE layers, two micro-batches, three steps.
        #expect(kept.deals == 12 && again.deals == 12)
        for (left, right) in zip(again.results, kept.results) {
            #expect(left.loss.bitPattern == right.loss.bitPattern)
            #expect(left.gradientNorm.bitPattern == right.gradientNorm.bitPattern)
            #expect(left.routing.layers.map(\.choices) == right.routing.layers.map(\.choices))
        }
        let (left, right) = (try again.trainer.tensors, try kept.trainer.tensors)
        #expect(left.map(\.name) == right.map(\.name))
        for (left, right) in zip(left, right) { expectSameBits(left.tensor, right.tensor, left.name) }
    }

    @Test func `its parameters learn, the replaced router's do not, and its loads are reported`() throws {
        let (trainer, results, _) = try train(checkpointing: true)
        let gradients = trainer.optimizer.namedStates().filter { $0.name.hasPrefix("first.") }
        for layer in [0, 2] {
            let own = try #require(gradients.first { $0.name.hasSuffix("layers.\(layer).mlp.dealer.weight") })
            #expect(own.tensor.floats().allSatisfy { $0 != 0 })
            let replaced = try #require(gradients.first { $0.name.hasSuffix("layers.\(layer).mlp.gate.weight") })
            #expect(replaced.tensor.floats().allSatisfy { $0 == 0 })
        }
        for result in results {
            #expect(result.routing.layers.map(\.layer) == [0, 2])
            for layer in result.routing.layers { #expect(layer.choices.reduce(0, +) == 4 * trainer.sequenceLength * 2) }
            #expect(result.routing.droppedFraction == 0)
        }
    }
}
