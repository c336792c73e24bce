import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusModels

/// Any contiguous range of stages can be built and run: what passes between them are explicit tensors.
@Suite struct TransformerStageTests {
    /// The whole as two stores of their own, with the whole's weights.
    private func halves(_ whole: TransformerFixture, cut: Int) throws -> (first: Transformer, second: Transformer) {
        let count = whole.model.configuration.layers
        let ranges = [
            Transformer.StageRange(hasEmbed: true, blocks: 0..<cut, hasHead: false),
            Transformer.StageRange(hasEmbed: false, blocks: cut..<count, hasHead: true),
        ]
        let parts = try ranges.map { range in
            let part = try Transformer(
                whole.model.configuration, backend: whole.backend, precision: .f32, isTrained: true, stages: range)
            for parameter in part.store.parameters {
                let target = try parameter.acquire(on: whole.backend.stream)
                try whole.backend.convert(whole.weights(parameter.name), into: target)
            }
            return part
        }
        return (parts[0], parts[1])
    }

    @Test(arguments: TransformerCase.all, [0, 1, 2, 3])
    func `two ranges one after the other compute the whole's loss and gradients`(
        _ sample: TransformerCase, _ cut: Int
    ) throws {
        let whole = try TransformerFixture(sample.configuration, isTrained: true)
        let backend = whole.backend
        let tokens = try whole.tokens()
        let targets = try whole.tokens(2)
        let tape = Tape(backend: backend)
        let expected = try whole.model.loss(tokens: tokens, targets: targets, scale: 0.1, try whole.context(tape))
        try tape.backward()

        let (first, second) = try halves(whole, cut: cut)
        #expect(first.embed != nil && first.head == nil && first.blocks.map(\.layer) == Array(0..<cut))
        #expect(second.embed == nil && second.head != nil)
        #expect(second.blocks.map(\.layer) == Array(cut..<sample.configuration.layers))
        let names = Set((first.store.parameters + second.store.parameters).map(\.name))
        #expect(names == Set(whole.model.store.parameters.map(\.name)))

        let chained = Tape(backend: backend)
        let context = try whole.context(chained)
        let embed = try #require(first.embed)
        var hidden = try embed(tokens, context.forward)
        for block in first.blocks + second.blocks { hidden = try block(hidden, context).hidden }
        let head = try #require(second.head)
        let found = try head.loss(head.normalized(hidden, on: chained), targets: targets, scale: 0.1, on: chained)
        try chained.addRoot(found.total, seed: 1)
        try chained.backward()
        expectSameBits(found.total.tensor, expected.loss.tensor, "loss")
        for parameter in whole.model.store.parameters {
            // A tied table is in both halves: its gradient is the sum of theirs.
            let parts = try [first, second].compactMap { try $0.store[parameter.name]?.gradient() }
            var total = [Double](repeating: 0, count: parameter.shape.count)
            for part in parts { total = zip(total, part.doubles).map { $0 + $1 } }
            let expected = try #require(try parameter.gradient())
            expectClose(expected, total, within: 1e-6, "gradient of \(parameter.name)")
        }
    }

    @Test(arguments: TransformerCase.all)
    func `checkpointed blocks give the same loss and gradients`(_ sample: TransformerCase) throws {
        var gradients: [[Float]] = []
        for checkpointing in [false, true] {
            let fixture = try TransformerFixture(sample.configuration, isTrained: true)
            let tape = Tape(backend: fixture.backend)
            _ = try fixture.model.loss(
                tokens: fixture.tokens(), targets: fixture.tokens(2), scale: 0.1, checkpointing: checkpointing,
                try fixture.context(tape))
            try tape.backward()
            gradients.append(try fixture.model.store.gradientParts.flatMap { try $0.gradients().floats() })
        }
        #expect(gradients[0].contains { $0 != 0 })
        // Layers that share a router add its gradients in another order when one is begun ahead of the other's second pass.
        guard sample.configuration.mixtures.allSatisfy({ $0.parametersOf == nil }) else {
            return expectClose(gradients[0], gradients[1].map(Double.init), within: 1e-6, "gradients")
        }
        #expect(gradients[0].map(\.bitPattern) == gradients[1].map(\.bitPattern))
    }

    @Test func `logits of some rows are rows of all logits`() throws {
        let fixture = try TransformerFixture(TransformerCase.all[0].configuration)
        let tokens = try fixture.tokens()
        let tape = Tape(backend: fixture.backend, isRecording: false)
        let all = try fixture.model.logits(tokens: tokens, fixture.context(tape))
        let rows = try fixture.backend.allocator.integers([20, 0, 11])
        let some = try fixture.model.logits(tokens: tokens, rows: rows, fixture.context(tape))
        for (index, row) in [20, 0, 11].enumerated() {
            expectClose(some[index..<index + 1], all[row..<row + 1].doubles, "row \(row)")
        }
    }

    /// A weight that is no number and the first place where that shows.
    @Test(arguments: [
        ("model.embed_tokens.weight", "the embedding"),
        ("model.layers.0.input_layernorm.weight", "the attention of layer 0"),
        ("model.layers.0.self_attn.o_proj.weight", "the attention of layer 0"),
        ("model.layers.0.mlp.gate.weight", "the feed-forward part of layer 0"),
        ("model.layers.1.self_attn.v_proj.weight", "the attention of layer 1"),
        ("model.layers.1.mlp.down_proj.weight", "the feed-forward part of layer 1"),
        ("model.layers.2.post_attention_layernorm.weight", "the feed-forward part of layer 2"),
        ("model.norm.weight", "the logits"), ("lm_head.weight", "the logits"), ("", nil),
    ])
    func `the first stage that is not finite is named`(_ name: String, _ place: String?) throws {
        let fixture = try TransformerFixture(TransformerCase.all[0].configuration)
        if !name.isEmpty {
            let weights = try fixture.weights(name)
            weights.assign([Float](repeating: .nan, count: weights.count))
        }
        let tape = Tape(backend: fixture.backend, isRecording: false)
        #expect(try fixture.model.firstNonFiniteStage(tokens: fixture.tokens(), fixture.context(tape)) == place)
    }
}
