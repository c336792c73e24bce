import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusModels

/// When gradients are complete: what other ranks are given while backward goes on.
@Suite struct GradientOrderTests {
    @Test(arguments: TransformerCase.all, [false, true])
    func `backward tells of gradients when they are complete, last parameters first`(
        _ sample: TransformerCase, _ checkpointing: Bool
    ) throws {
        let fixture = try TransformerFixture(sample.configuration, isTrained: true)
        let parameters = fixture.model.store.parameters
        let tape = Tape(backend: fixture.backend)
        let plain = try fixture.context(tape)
        var told: [Int] = []
        var early: [String: [UInt32]] = [:]
        let forward = ForwardContext(
            tape: tape, layout: plain.forward.layout, trainingStep: plain.forward.trainingStep,
            seed: plain.forward.seed,
            gradientsComplete: { first in
                told.append(first)
                for parameter in parameters[first...] where early[parameter.name] == nil {
                    early[parameter.name] = try parameter.gradient()?.bits
                }
            })
        _ = try fixture.model.loss(
            tokens: fixture.tokens(), targets: fixture.tokens(2), scale: 0.1, checkpointing: checkpointing,
            MoEContext(forward: forward, report: nil, globalTokens: plain.globalTokens))
        try tape.backward()

        let layers = sample.configuration.layers
        let expected = (0...layers).reversed().map { layer in
            // Experts that are begun in the block before are complete only with that one.
            let position = layer < layers ? sample.configuration.moe(layer: layer)?.shortcut?.position : nil
            let isAhead = !checkpointing && (position == .attention || position == .input)
            return fixture.model.store.parameters(before: isAhead ? layer + 1 : layer)
        }
        #expect(told == expected)
        // The head's norm and weights come after the blocks, the tables before.
        #expect(told.first.map { $0 < parameters.count } == true && told.last.map { $0 > 0 } == true)
        for parameter in parameters[(told.last ?? 0)...] {
            #expect(try early[parameter.name] == parameter.gradient()?.bits, "\(parameter.name)")
        }
    }
}
