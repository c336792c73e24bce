import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Glibc
import Testing

@testable import ApusModels

// Shape letters: S tokens of an image, P pixel values of a patch, D model width, H head width, F feed-forward width.

/// An encoder of images against its definition, written out in double precision.
@Suite struct EncoderTests {
    private static let patches = PatchConfiguration(height: 4, width: 2, size: 2)
    private static let configuration = ModelConfiguration(
        vocabulary: 3, width: 4, heads: 2, maximumPositions: 3, norm: .layer, position: .learned, attentionBias: true,
        activation: .geluTanh, feedForward: [.dense(width: 5)], initialDeviation: 0.5, patches: patches)
    /// Two images: class tokens, and two patches of 2 x 2 pixels each.
    private static let pixels = [
        256, 256, 256, 256, 0, 255, 17, 128, 3, 3, 200, 90,
        256, 256, 256, 256, 100, 40, 250, 4, 255, 255, 0, 30,
    ]
    private static let labels = [2, 0]

    /// The loss of the images, from the class tokens alone.
    private func loss(_ fixture: TransformerFixture, _ tape: Tape) throws -> Transformer.LossResult {
        let backend = fixture.backend
        let layout = try TokenLayout.sequences([3, 3], backend: backend)
        return try fixture.model.loss(
            tokens: backend.allocator.integers(Self.pixels),
            targets: backend.allocator.integers(Self.labels.flatMap { [$0, -100, -100] }), scale: 0.5,
            MoEContext(forward: ForwardContext(tape: tape, layout: layout)))
    }

    @Test func `the loss is that of the definition`() throws {
        let fixture = try TransformerFixture(Self.configuration)
        let found = try loss(fixture, Tape(backend: fixture.backend, isRecording: false))
        let reference = try Reference(fixture)
        let expected = (0..<2).map { image in
            reference.loss(Array(Self.pixels[image * 12..<(image + 1) * 12]), label: Self.labels[image])
        }
        expectClose(found.perToken, [expected[0], 0, 0, expected[1], 0, 0], "loss of an image")
        expectClose(found.loss.tensor, [(expected[0] + expected[1]) / 2], "mean over images")
    }

    @Test func `gradients are those that differences show`() throws {
        let fixture = try TransformerFixture(Self.configuration, isTrained: true)
        let tape = Tape(backend: fixture.backend)
        _ = try loss(fixture, tape)
        try tape.backward()
        var check = GradientCheck()
        check.step = 0.003  // Pixels as large as 1 bend the loss.
        // A bias of the keys moves all scores of a query alike, so that nothing depends on it.
        for parameter in fixture.model.store.parameters where !parameter.name.hasSuffix("k_proj.bias") {
            let gradient = try #require(try parameter.gradient()).floats()
            try check.expect(gradient, of: parameter.acquire(on: .cpu), parameter.name) {
                let idle = Tape(backend: fixture.backend, isRecording: false)
                return try loss(fixture, idle).perToken.doubles.reduce(0, +) / 2
            }
        }
    }

    @Test func `its configuration file reads back, and what cannot be is refused`() throws {
        let configuration = Self.configuration
        #expect(try ModelConfiguration(json: configuration.json()) == configuration)
        #expect(configuration.maximumPositions == Self.patches.tokens && Self.patches.values == 4)
        func refusal(_ change: (inout ModelConfiguration) -> Void) -> String {
            var changed = configuration
            change(&changed)
            do throws(ModelConfigurationError) {
                try changed.checkSizes()
                return ""
            } catch {
                return "\(error)"
            }
        }
        let refusals: [(String, String)] = [
            (refusal { $0.patches?.size = 3 }, "'patches.size' is 3: it must divide"),
            (refusal { $0.patches?.channels = 0 }, "'patches.channels' is 0"),
            (refusal { $0.maximumPositions = 4 }, "so it must be 3"),
            (refusal { $0.position = .rotary(theta: 100) }, "use 'learned'"),
            (refusal { $0.tiedEmbeddings = true }, "'tied_embeddings' is true"),
            (refusal { $0.slidingWindow = 2 }, "'sliding_window' is 2"),
        ]
        for (found, wanted) in refusals { #expect(found.contains(wanted), "\(found)") }
        try configuration.checkSizes()
        #expect(HubFamily.allCases.allSatisfy { !$0.canExpress(configuration) })
        var odd = configuration.json()
        odd.replace("\"size\": 2", with: "\"sise\": 2")
        #expect(throws: ModelConfigurationError.self) { try ModelConfiguration(json: odd) }
    }

    /// Counted by hand: 4 x 4 + 4 for patches, 3 x 4 for places, 3 norms of 8, 4 x (16 + 4) for attention, 2 x 20, 3 x 4.
    @Test func `parameters and work are counted`() {
        let counts = Self.configuration.parameterCounts()
        #expect(counts.total == 20 + 12 + 24 + 80 + 40 + 12)
        #expect(counts.embedding == 32 && counts.lookedUp == 12)
        #expect(Self.configuration.meanContext(sequence: 3) == 3)
        let flops = Self.configuration.flopsPerToken(meanContext: 3)
        #expect(flops.projections == 2 * 64 + 2 * 16 && flops.head == 24)
    }
}

/// One encoder block over one image, in double precision.
private struct Reference {
    private let weights: [String: [Double]]

    init(_ fixture: TransformerFixture) throws {
        weights = try Dictionary(
            uniqueKeysWithValues: fixture.model.store.parameters.map { ($0.name, try fixture.weights($0.name).doubles) }
        )
    }

    func loss(_ pixels: [Int], label: Int) -> Double {
        let block = "model.layers.0"
        var stream = (0..<3).map { token -> [Double] in
            let values = pixels[token * 4..<(token + 1) * 4].map { $0 == 256 ? 0 : (Double($0) - 127.5) / 127.5 }
            let places = w("model.embed_positions.weight")[token * 4..<(token + 1) * 4]
            return zip(linear("model.embed_patches", values), places).map { $0 + $1 }
        }
        let normed = stream.map { norm("\(block).input_layernorm", $0) }
        let parts = ["q", "k", "v"].map { name in normed.map { linear("\(block).self_attn.\(name)_proj", $0) } }
        for token in 0..<3 {
            var mixed: [Double] = []
            for head in 0..<2 {
                let columns = head * 2..<(head + 1) * 2
                // Every token of the image is seen, those behind as those before.
                let scores = (0..<3).map { other in
                    columns.reduce(0.0) { $0 + parts[0][token][$1] * parts[1][other][$1] } / 2.squareRoot()
                }
                let share = softmax(scores)
                mixed += columns.map { column in (0..<3).reduce(0.0) { $0 + share[$1] * parts[2][$1][column] } }
            }
            stream[token] = zip(stream[token], linear("\(block).self_attn.o_proj", mixed)).map { $0 + $1 }
        }
        // Behind attention the class token is alone.
        let hidden = linear("\(block).mlp.up_proj", norm("\(block).post_attention_layernorm", stream[0])).map { x in
            x / 2 * (1 + tanh((2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x)))
        }
        let last = zip(stream[0], linear("\(block).mlp.down_proj", hidden)).map { $0 + $1 }
        let logits = linear("classifier", norm("model.norm", last))
        return -log(softmax(logits)[label])
    }

    private func w(_ name: String) -> [Double] { weights[name] ?? [] }

    private func linear(_ name: String, _ x: [Double]) -> [Double] {
        let matrix = w("\(name).weight")
        let rows = matrix.count / x.count
        let bias = weights["\(name).bias"] ?? Array(repeating: 0, count: rows)
        return (0..<rows).map { row in x.indices.reduce(bias[row]) { $0 + matrix[row * x.count + $1] * x[$1] } }
    }

    private func norm(_ name: String, _ x: [Double]) -> [Double] {
        let mean = x.reduce(0, +) / Double(x.count)
        let variance = x.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(x.count)
        let (weight, bias) = (w("\(name).weight"), w("\(name).bias"))
        return x.indices.map { (x[$0] - mean) / (variance + 1e-5).squareRoot() * weight[$0] + bias[$0] }
    }

    private func softmax(_ x: [Double]) -> [Double] {
        let powers = x.map { exp($0) }
        return powers.map { $0 / powers.reduce(0, +) }
    }
}
