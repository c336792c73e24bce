import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusModels

/// Parameters of a router that a program brings: saved and loaded by that program, refused by any other.
@Suite struct FurtherParameterTests {
    /// The standard router with a temperature of its own, which the configuration knows nothing of.
    private struct WarmRouter: Router {
        let standard: TopKRouter
        let temperature: Parameter

        init(layer: Int, standard: TopKRouter) {
            self.standard = standard
            temperature = Parameter(
                "model.layers.\(layer).mlp.gate.temperature", Shape(3), role: .router, layer: layer, decays: false,
                initializer: .normal(deviation: 1))
        }

        var experts: Int { standard.experts }
        var parameters: [Parameter] { standard.parameters + [temperature] }

        func route(_ x: Variable, layer: Int, _ context: MoEContext) throws -> Routing {
            try standard.route(x, layer: layer, context)
        }
    }

    private let backend = CPUBackend(threadCount: 2)
    private let names = [0, 2].map { "model.layers.\($0).mlp.gate.temperature" }

    private func model(seed: UInt64) throws -> Transformer {
        let model = try Transformer(
            TransformerCase.all[0].configuration, backend: backend, precision: .f32, isTrained: true,
            router: { WarmRouter(layer: $0, standard: $1) })
        try model.store.initialize(seed: seed, backend: backend)
        return model
    }

    @Test func `a model names them`() throws {
        #expect(try model(seed: 1).furtherParameters.map(\.name) == names)
        #expect(try TransformerFixture(TransformerCase.all[0].configuration).model.furtherParameters.isEmpty)
    }

    @Test func `they are saved, and loaded by who has them`() throws {
        let (saved, loaded) = (try model(seed: 1), try model(seed: 2))
        let scratch = try ScratchFolder()
        try saved.write(toFolder: scratch.path, as: nil, backend: backend)
        try ModelFolder(scratch.path, further: loaded.furtherParameters).loadWeights(
            into: loaded.store, backend: backend)
        for parameter in saved.store.parameters {
            let left = try parameter.withWeights(on: backend.stream) { $0.floats() }
            let right = try #require(loaded.store[parameter.name]).withWeights(on: backend.stream) { $0.floats() }
            #expect(left == right, "\(parameter.name)")
        }
    }

    @Test func `who has them not is told their names`() throws {
        let scratch = try ScratchFolder()
        try model(seed: 1).write(toFolder: scratch.path, as: nil, backend: backend)
        #expect(throws: TensorMapError(problems: names.map { .leftOver(name: $0, shape: [3]) })) {
            try ModelFolder(scratch.path)
        }
    }

    @Test func `a family's folder has no place for them`() throws {
        var moe = MoEConfiguration(experts: 3, choices: 2, width: 10, losses: RouterLosses(scope: .pooled))
        moe.router.renormalizes = true
        let configuration = ModelConfiguration(
            vocabulary: 20, width: 16, heads: 4, keyValueHeads: 2, maximumPositions: 12, feedForward: [.moe(moe)])
        let model = try Transformer(
            configuration, backend: backend, precision: .f32, isTrained: false,
            router: { WarmRouter(layer: $0, standard: $1) })
        let scratch = try ScratchFolder()
        #expect(
            throws: ModelConfigurationError.notExpressible(
                family: .mixtral, key: names[0], found: "a parameter of the program's own router", others: [])
        ) {
            try model.write(toFolder: scratch.path, as: .mixtral, backend: backend)
        }
    }
}
