import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusModels

/// Models whose experts read an earlier state, against the paper's formulas and against differences.
@Suite struct ShortcutModelTests {
    typealias Position = ShortcutConfiguration.Position

    /// One of them: which layers are mixtures, and how.
    struct Form: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let configuration: ModelConfiguration

        init(_ name: String, _ change: (inout MoEConfiguration) -> Void, _ layers: String = "dede") {
            var moe = MoEConfiguration(experts: 5, choices: 1, width: 10, activation: .relu, sharedWidth: 10)
            change(&moe)
            testDescription = name
            var owner: Int?
            // d: dense, e: a mixture with experts of its own, s: one that shares those of the last e.
            let parts = layers.enumerated().map { layer, kind -> ModelConfiguration.FeedForward in
                guard kind != "d" else { return .dense(width: 14) }
                var own = moe
                if kind == "e" { owner = layer } else { own.parametersOf = owner }
                return .moe(own)
            }
            configuration = ModelConfiguration(
                vocabulary: 20, width: 16, heads: 4, maximumPositions: 12, position: .learned, activation: .relu,
                feedForward: parts, initialDeviation: 0.3)
        }
    }

    private static let shared: [Form] = Position.allCases.flatMap { position in
        SharedCombination.allCases.flatMap { combination in
            [1, 2].map { choices in
                Form("position \(position.rawValue), \(combination.rawValue), top-\(choices)") {
                    $0.shortcut = ShortcutConfiguration(position: position)
                    ($0.sharedCombination, $0.choices) = (combination, choices)
                }
            }
        }
    }

    private static let dual: [Form] = Position.allCases.flatMap { position in
        [1, 2].flatMap { choices in
            ["dede", "deds"].map { layers in
                Form(
                    "DGMoE, position \(position.rawValue), top-\(choices)\(layers == "deds" ? ", shared" : "")",
                    {
                        $0.shortcut = ShortcutConfiguration(position: position, isDual: true)
                        ($0.sharedWidth, $0.choices) = (0, choices)
                    }, layers)
            }
        }
    }

    private static let forms =
        shared + dual + [
            Form(
                "every block, position 1",
                {
                    $0.shortcut = ShortcutConfiguration(position: .output)
                    $0.sharedCombination = .gate
                }, "eee"),
            Form(
                "mixtures after mixtures, position 2, shared",
                { $0.shortcut = ShortcutConfiguration(position: .attention) }, "dess"),
            Form(
                "mixtures after mixtures, position 3, no shared expert",
                {
                    $0.shortcut = ShortcutConfiguration(position: .input)
                    $0.sharedWidth = 0
                }, "dee"),
        ]

    @Test(arguments: forms)
    func `states are those of the paper's formulas`(_ form: Form) throws {
        try form.configuration.checkSizes()
        let fixture = try TransformerFixture(form.configuration)
        // Norms that are not all 1, so that it shows which one is used.
        for (place, parameter) in fixture.model.store.parameters.enumerated() where parameter.name.contains("norm") {
            try fixture.backend.fillRandom(
                fixture.weights(parameter.name), .uniform(low: 0.5, high: 1.5),
                stream: RandomStream(seed: UInt64(place), purpose: .sampling), first: 0)
        }
        let tokens = try fixture.tokens()
        let tape = Tape(backend: fixture.backend, isRecording: false)
        let found = try fixture.model.states(tokens: tokens, fixture.context(tape))
        var reference = ShortcutReference(fixture.model)
        let ids = tokens.array(of: Int32.self).map(Int.init)
        let first = TransformerFixture.lengths[0]
        let expected = try reference.states(Array(ids[..<first])) + reference.states(Array(ids[first...]))
        expectClose(found, expected, "states")
        // Two of five experts are rarely two others than before.
        let moe = form.configuration.mixtures[0]
        guard moe.shortcut?.isDual == true else { return }
        #expect(
            reference.clashes > 0 && (reference.others > 0 || moe.choices > 1), "both cases of the constraint arise")
    }

    @Test(arguments: dual)
    func `no token meets an expert twice in a layer`(_ form: Form) throws {
        let fixture = try TransformerFixture(form.configuration)
        let trace = RoutingTrace()
        let tape = Tape(backend: fixture.backend, isRecording: false)
        let plain = try fixture.context(tape)
        let context = MoEContext(forward: plain.forward, trace: trace)
        _ = try fixture.model.states(tokens: fixture.tokens(), context)
        let layers = form.configuration.feedForward.indices.filter { form.configuration.moe(layer: $0) != nil }
        #expect(trace.recorded.count == 2 * layers.count)
        #expect(Set(trace.recorded.keys.map(RoutingTrace.layer)) == Set(layers))
        for layer in layers {
            let passes = trace.recorded.filter { RoutingTrace.layer(ofKey: $0.key) == layer }.map {
                $0.value.ids.array(of: Int32.self)
            }
            let choices = passes[0].count / 21
            for token in 0..<21 {
                let own = passes.map { Set($0[token * choices..<(token + 1) * choices]) }
                #expect(own[0].isDisjoint(with: own[1]) && own.allSatisfy { $0.count == choices })
            }
        }
    }

    /// Of every parameter, also those that two layers share, with the routing held.
    @Test(arguments: [
        forms[2], forms[9], forms[10], forms[14], dual[4], dual[5],
    ])
    func `gradients are derivatives`(_ form: Form) throws {
        var configuration = form.configuration
        // Without kinks, which differences would step over.
        configuration.activation = .geluTanh
        for layer in configuration.mixtureLayers {
            guard case .moe(var moe) = configuration.feedForward[layer] else { continue }
            moe.activation = .swiglu
            configuration.feedForward[layer] = .moe(moe)
        }
        let fixture = try TransformerFixture(configuration, isTrained: true)
        let trace = RoutingTrace()
        func pass(_ tape: Tape, _ trace: RoutingTrace) throws -> Double {
            let context = MoEContext(forward: try fixture.context(tape).forward, trace: trace)
            let result = try fixture.model.loss(
                tokens: fixture.tokens(), targets: fixture.tokens(2), scale: 1, context)
            return result.perToken.floats().reduce(0) { $0 + Double($1) }
        }
        let tape = Tape(backend: fixture.backend)
        _ = try pass(tape, trace)
        try tape.backward()
        var check = GradientCheck()
        // A loss over 21 tokens: smaller slopes against the same rounding.
        (check.directions, check.elements, check.tolerance) = (2, 4, 5e-3)
        for parameter in fixture.model.store.parameters {
            let isNew = ["shortcut", "coefficient", "shared_expert", ".mlp.gate"].contains {
                parameter.name.contains($0)
            }
            guard isNew || parameter.name.contains("experts.1") || parameter.name.contains("o_proj") else { continue }
            // The loss bends more along what all later layers read.
            check.step = parameter.name.contains("o_proj") ? 0.002 : 0.01
            let gradient = try #require(try parameter.gradient()).floats()
            try check.expect(gradient, of: fixture.weights(parameter.name), parameter.name) {
                try pass(Tape(backend: fixture.backend, isRecording: false), trace.replay())
            }
        }
    }

    @Test(arguments: forms)
    func `config.json reads back`(_ form: Form) throws {
        #expect(try ModelConfiguration(json: form.configuration.json()) == form.configuration)
    }

    @Test func `what has no shortcut is written as it was`() {
        let plain = ModelConfiguration(
            vocabulary: 20, width: 16, heads: 4, maximumPositions: 12,
            feedForward: [.moe(MoEConfiguration(experts: 4, choices: 1, width: 8, sharedWidth: 4))])
        for key in ["shortcut", "shared_combination", "parameters_of"] { #expect(!plain.json().contains(key)) }
    }

    /// A configuration that no model can have: the key that is blamed, and what would work.
    struct Impossible: Sendable, CustomTestStringConvertible {
        let key: String
        let remedy: String
        let layers: String
        let change: @Sendable (inout MoEConfiguration) -> Void

        init(
            _ key: String, _ remedy: String, _ layers: String,
            _ change: @escaping @Sendable (inout MoEConfiguration) -> Void
        ) {
            (self.key, self.remedy, self.layers, self.change) = (key, remedy, layers, change)
        }

        var testDescription: String { "\(key): \(remedy)" }
    }

    private static let impossible: [Impossible] = [
        Impossible("feed_forward[0].shortcut.position", "no block stands before layer 0", "e") {
            $0.shortcut = ShortcutConfiguration()
        },
        Impossible("feed_forward[0].shared_combination", "a shared_width", "e") {
            ($0.sharedWidth, $0.sharedCombination) = (0, .gate)
        },
        Impossible("feed_forward[1].choices", "use at most 2", "de") {
            ($0.choices, $0.sharedWidth, $0.shortcut) = (3, 0, ShortcutConfiguration(isDual: true))
        },
        Impossible("feed_forward[1].shortcut.dual", "use shared_width 0", "de") {
            $0.shortcut = ShortcutConfiguration(isDual: true)
        },
        Impossible("feed_forward[1].shortcut.dual", "groups, nodes and annealing", "de") {
            ($0.sharedWidth, $0.shortcut) = (0, ShortcutConfiguration(isDual: true))
            $0.losses.scope = .pooled
        },
        Impossible("feed_forward[1].parameters_of", "an earlier layer", "de") { $0.parametersOf = 1 },
        Impossible("feed_forward[1].parameters_of", "must be a mixture", "de") { $0.parametersOf = 0 },
    ]

    @Test(arguments: impossible)
    func `what no model can have is refused by key`(_ flaw: Impossible) throws {
        var model = Form("", { _ in }, flaw.layers).configuration
        guard let layer = model.mixtureLayers.first, case .moe(var moe) = model.feedForward[layer] else { return }
        flaw.change(&moe)
        model.feedForward[layer] = .moe(moe)
        let error = try #require(throws: ModelConfigurationError.self) { try model.checkSizes() }
        #expect("\(error)".contains(flaw.key) && "\(error)".contains(flaw.remedy), "\(error)")
    }

    @Test func `counts are those by hand`() throws {
        func counts(_ change: (inout MoEConfiguration) -> Void, _ layers: String) -> (ParameterCounts, TokenFLOPs) {
            let model = Form("", change, layers).configuration
            return (model.parameterCounts(), model.flopsPerToken(meanContext: 0))
        }
        let (expert, gate) = (2 * 16 * 10, 5 * 16)
        let plain = counts({ _ in }, "dede")
        let gated = counts(
            { ($0.shortcut, $0.sharedCombination) = (ShortcutConfiguration(), .gate) }, "dede")
        // A norm and a vector of coefficients in each of two layers.
        #expect(gated.0.total == plain.0.total + 2 * (16 + 16))
        #expect(gated.0.routers == plain.0.routers + 2 * 16)
        #expect(gated.1.denseFeedForward == plain.1.denseFeedForward + Double(2 * 2 * 16))
        #expect(gated.1.experts == plain.1.experts)
        func dual(_ layers: String) -> (ParameterCounts, TokenFLOPs) {
            counts({ ($0.shortcut, $0.sharedWidth) = (ShortcutConfiguration(isDual: true), 0) }, layers)
        }
        let (two, one) = (dual("dede"), dual("deds"))
        // Each token meets two experts of a layer and the gate twice; the shared experts are gone.
        #expect(two.0.total == plain.0.total + 2 * 16 - 2 * expert)
        #expect(two.0.activeExperts == 4 * expert && two.1.experts == Double(2 * 4 * expert))
        #expect(two.1.routers == Double(2 * 4 * gate))
        // One mixture for both pairs.
        #expect(one.0.total == two.0.total - 5 * expert - gate)
        #expect(one.1 == two.1)
    }
}
