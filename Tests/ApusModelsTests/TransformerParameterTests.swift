import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusModels

/// What a model declares is what its configuration says it has.
@Suite struct TransformerParameterTests {
    private func expectInventory(
        of configuration: ModelConfiguration, sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let backend = CPUBackend(threadCount: 1)
        let model = try Transformer(configuration, backend: backend, precision: .f32, isTrained: false)
        let declared = Dictionary(
            uniqueKeysWithValues: model.store.parameters.map { ($0.name, $0.shape.dimensions) })
        let listed = Dictionary(
            uniqueKeysWithValues: configuration.parameterInventory().map { ($0.name, $0.shape) })
        #expect(declared == listed, sourceLocation: sourceLocation)
        for entry in configuration.parameterInventory() {
            let parameter = model.store[entry.name]
            #expect(parameter?.layer == entry.layer, "\(entry.name)", sourceLocation: sourceLocation)
            #expect(parameter?.expert == entry.expert, "\(entry.name)", sourceLocation: sourceLocation)
            #expect(parameter?.role == entry.role, "\(entry.name)", sourceLocation: sourceLocation)
        }
        let counts = configuration.parameterCounts()
        #expect(
            counts.total == model.store.parameters.reduce(0) { $0 + $1.shape.count }, sourceLocation: sourceLocation)
        let experts = model.store.parameters.filter { $0.role == .expert }.reduce(0) { $0 + $1.shape.count }
        #expect(counts.experts == experts, sourceLocation: sourceLocation)
        // Decay is for matrices: neither norms nor biases have two dimensions.
        for parameter in model.store.parameters {
            #expect(
                parameter.decays == (parameter.shape.rank == 2), "\(parameter.name)", sourceLocation: sourceLocation)
        }
    }

    @Test(arguments: TransformerCase.all)
    func `names, shapes and roles are those of the inventory`(_ sample: TransformerCase) throws {
        try sample.configuration.checkSizes()
        try expectInventory(of: sample.configuration)
    }

    @Test(arguments: ModelConfiguration.presetNames)
    func `every preset builds when it is made small`(_ name: String) throws {
        try expectInventory(of: try ModelConfiguration.preset(named: name).shrunk())
    }

    /// Switch Transformers section 2.4: a variance of s / inputs; tables keep their deviation.
    @Test func `an initial scale sets the variance by the inputs`() throws {
        let moe = MoEConfiguration(experts: 4, choices: 1, width: 256)
        let fixture = try TransformerFixture(
            ModelConfiguration(
                vocabulary: 200, width: 64, heads: 4, maximumPositions: 300, position: .learned,
                feedForward: [.moe(moe)],
                initialDeviation: 0.02, initialScale: 0.1))
        func deviation(_ name: String) throws -> Double {
            let values = try fixture.weights(name).doubles
            return (values.reduce(0) { $0 + $1 * $1 } / Double(values.count)).squareRoot()
        }
        #expect(abs(try deviation("model.embed_tokens.weight") - 0.02) < 0.001)
        #expect(abs(try deviation("model.embed_positions.weight") - 0.02) < 0.001)
        #expect(abs(try deviation("lm_head.weight") - 0.02) < 0.001)
        // The roots of 0.1 / 64 and of 0.1 / 256.
        #expect(abs(try deviation("model.layers.0.self_attn.o_proj.weight") - 0.0395) < 0.002)
        #expect(abs(try deviation("model.layers.0.mlp.experts.2.up_proj.weight") - 0.0395) < 0.002)
        #expect(abs(try deviation("model.layers.0.mlp.experts.2.down_proj.weight") - 0.0198) < 0.001)
        #expect(abs(try deviation("model.layers.0.mlp.gate.weight") - 0.0395) < 0.008)
    }

    @Test func `weights begin as their initializers say`() throws {
        let fixture = try TransformerFixture(
            ModelConfiguration(
                vocabulary: 200, width: 64, heads: 4, maximumPositions: 8, norm: .layer, attentionBias: true,
                feedForward: Array(repeating: .dense(width: 128), count: 2), initialDeviation: 0.1))
        func deviation(_ name: String) throws -> Double {
            let values = try fixture.weights(name).doubles
            return (values.reduce(0) { $0 + $1 * $1 } / Double(values.count)).squareRoot()
        }
        #expect(abs(try deviation("model.embed_tokens.weight") - 0.1) < 0.003)
        #expect(abs(try deviation("model.layers.0.self_attn.q_proj.weight") - 0.1) < 0.005)
        // Smaller by the root of two branches a layer.
        #expect(abs(try deviation("model.layers.1.self_attn.o_proj.weight") - 0.05) < 0.003)
        #expect(abs(try deviation("model.layers.0.mlp.down_proj.weight") - 0.05) < 0.003)
        #expect(try fixture.weights("model.norm.weight").floats().allSatisfy { $0 == 1 })
        #expect(try fixture.weights("model.layers.0.self_attn.q_proj.bias").floats().allSatisfy { $0 == 0 })
        let same = try TransformerFixture(fixture.model.configuration)
        for (left, right) in zip(fixture.model.store.groups, same.model.store.groups) {
            expectSameBits(left.weights, right.weights, "weights of the same seed")
        }
    }
}

extension ModelConfiguration {
    /// The same kinds of parts, a few of them, and small.
    func shrunk() -> ModelConfiguration {
        var model = self
        let group = heads / keyValueHeads
        model.keyValueHeads = min(keyValueHeads, 2)
        (model.heads, model.headWidth) = (model.keyValueHeads * min(group, 2), 4)
        (model.vocabulary, model.width, model.maximumPositions) = (16, 8, 8)
        if let latent {
            model.keyValueHeads = model.heads
            model.latent = LatentConfiguration(
                queryRank: latent.queryRank == nil ? nil : 5, keyValueRank: 3, plainWidth: 2, rotaryWidth: 2,
                valueWidth: 3)
        }
        model.feedForward = feedForward.suffix(4).map { part in
            guard case .moe(var moe) = part else { return .dense(width: 12) }
            moe.experts = min(moe.experts, 6)
            moe.choices = min(moe.choices, moe.experts)
            (moe.width, moe.sharedWidth) = (6, min(moe.sharedWidth, 4))
            return .moe(moe)
        }
        return model
    }
}
