import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusModels

/// Models with the experts of two others.
@Suite struct AggregationTests {
    private let fixture: SurgeryFixture

    init() throws { fixture = try SurgeryFixture() }

    @Test(arguments: [Float(0.5), 0.25, 1])
    func `shared weights are averaged, routers put one below the other, experts united`(_ share: Float) throws {
        let change = { (moe: inout MoEConfiguration) in
            (moe.isResidual, moe.sharedWidth) = (true, 5)
            moe.router = RouterConfiguration(scoring: .sigmoid, renormalizes: true, biasRate: 0.01)
        }
        let one = try fixture.store(SurgeryFixture.mixture([4, 2], change), as: "one", seed: 1)
        let two = try fixture.store(SurgeryFixture.mixture([3, 2], change), as: "two", seed: 2) { model in
            try fixture.set("model.layers.0.mlp.gate.e_score_correction_bias", of: model, to: [7, 8, 9])
        }
        let made = try fixture.write(Aggregation(share: share).surgery(of: one, two), as: "both")
        let model = made.configuration.configuration
        #expect(model.feedForward.indices.map { model.moe(layer: $0)?.experts } == [7, 4])
        #expect(model.moe(layer: 0)?.choices == 2)
        let prefix = "model.layers.0.mlp"
        for name in ["gate.weight", "gate.e_score_correction_bias"] {
            let (own, other) = (try one.values("\(prefix).\(name)"), try two.values("\(prefix).\(name)"))
            #expect(try made.values("\(prefix).\(name)") == own + other)
        }
        for (expert, source, place) in [(0, one, 0), (3, one, 3), (4, two, 0), (6, two, 2)] {
            for matrix in ["gate_proj", "up_proj", "down_proj"] {
                let expected = try source.values("\(prefix).experts.\(place).\(matrix).weight")
                #expect(try made.values("\(prefix).experts.\(expert).\(matrix).weight") == expected)
            }
        }
        let averaged = [
            "model.embed_tokens.weight", "model.layers.1.self_attn.q_proj.weight", "model.norm.weight",
            "\(prefix).coefficient.weight", "\(prefix).shared_expert.up_proj.weight",
            "\(prefix).residual_expert.down_proj.weight", "lm_head.weight",
        ]
        for name in averaged {
            let expected = zip(try one.values(name), try two.values(name)).map {
                Double(share) * Double($0) + (1 - Double(share)) * Double($1)
            }
            try expectClose(made.values(name), expected, within: 1e-6, name)
        }
        _ = try fixture.logits(made)
    }

    @Test func `averages of bf16 are formed in f32 and rounded once, and types that differ become the wider`() throws {
        let configuration = SurgeryFixture.mixture()
        let one = try fixture.store(configuration, as: "one", seed: 1, .bf16)
        let two = try fixture.store(configuration, as: "two", seed: 2, .bf16)
        let wide = try fixture.store(configuration, as: "wide", seed: 2, .f32)
        let made = try fixture.write(Aggregation().surgery(of: one, two), as: "both")
        #expect(made.storedType == .bf16)
        let name = "model.layers.0.self_attn.k_proj.weight"
        let expected = zip(try one.values(name), try two.values(name)).map { (own, other) -> Float in
            Float(bitPattern: UInt32(bfloat16Bits((own + other) / 2)) << 16)
        }
        #expect(try made.values(name) == expected)
        let mixed = try fixture.write(Aggregation().surgery(of: one, wide), as: "mixed")
        let kept = "model.layers.0.mlp.experts.5.up_proj.weight"
        #expect(try mixed.values(kept) == wide.values("model.layers.0.mlp.experts.1.up_proj.weight"))
    }

    @Test func `the first difference is named`() throws {
        let base = SurgeryFixture.mixture()
        let one = try fixture.store(base, as: "one")
        func difference(_ name: String, _ change: (inout ModelConfiguration) -> Void) throws -> String? {
            var other = base
            change(&other)
            let two = try fixture.store(other, as: name)
            guard
                case .different(_, _, let key, let own, let theirs)? = surgeryError({
                    _ = try Aggregation().surgery(of: one, two)
                })
            else { return nil }
            return "\(key) \(own) \(theirs)"
        }
        #expect(try difference("width") { $0.width = 32 } == "width 16 32")
        #expect(try difference("vocabulary") { $0.vocabulary = 21 } == "vocabulary 20 21")
        #expect(
            try difference("layers") { $0.feedForward.append(.dense(width: 3)) }
                == "feed_forward a list of 2 a list of 3")
        let narrow = try difference("narrow") {
            $0.feedForward[1] = SurgeryFixture.mixture { $0.width = 9 }.feedForward[1]
        }
        #expect(narrow == "feed_forward[1].width 10 9")
        #expect(
            try difference("dense") { $0.feedForward[0] = .dense(width: 10) }
                == "feed_forward[0].activation 'swiglu' null")
        // How a model is trained makes no difference, and the first's is taken.
        let practice = try difference("practice") { model in
            model = SurgeryFixture.mixture { moe in
                moe.losses = RouterLosses(balance: 0.5)
                moe.policy = .capacity(factor: 2, minimum: 1, order: .position)
            }
        }
        #expect(practice == nil)
        let dense = try fixture.store(SurgeryFixture.dense(), as: "plain")
        #expect(
            surgeryError { _ = try Aggregation().surgery(of: dense, dense) } == .noMixture(folder: dense.path))
        #expect(
            surgeryError { _ = try Aggregation(share: 1.5).surgery(of: one, one) }
                == .wrongOption(name: "the first model's share", found: "1.5", wanted: "from 0 to 1"))
    }

    @Test func `other tokenizers are another vocabulary`() throws {
        let (one, two) = (
            try fixture.store(SurgeryFixture.mixture(), as: "one"),
            try fixture.store(SurgeryFixture.mixture(), as: "two")
        )
        _ = try fixture.scratch.write("one/tokenizer.json", text: "{}")
        _ = try fixture.scratch.write("two/tokenizer.json", text: "{\"a\": 1}")
        guard
            case .different(_, _, let key, _, _)? = surgeryError({ _ = try Aggregation().surgery(of: one, two) })
        else {
            Issue.record("not refused")
            return
        }
        #expect(key == "tokenizer.json")
    }

    @Test func `more experts than a layer may have are refused`() throws {
        var large = SurgeryFixture.mixture([600]) { $0.width = 1 }
        large.width = 8
        large.headWidth = 2
        let one = try fixture.store(large, as: "large")
        #expect(throws: ModelConfigurationError.self) { _ = try Aggregation().surgery(of: one, one) }
    }

    @Test func `a tensor of any size passes through in pieces`() throws {
        // The table and the head have 3 M elements each, more than are held at once.
        var configuration = SurgeryFixture.mixture()
        (configuration.vocabulary, configuration.width, configuration.headWidth) = (48_000, 64, 16)
        let one = try fixture.store(configuration, as: "one", seed: 1)
        let two = try fixture.store(configuration, as: "two", seed: 2)
        let surgery = try Aggregation().surgery(of: one, two)
        let backend = CPUBackend(threadCount: 1)
        let path = fixture.scratch.file("both")
        let record = try surgery.write(to: path, backend: backend)
        let largest = 48_000 * 64 * 4
        #expect(record.bytes > 2 * largest)
        // Of the largest tensor there are at most three pieces, of 8 MiB each.
        #expect(backend.allocator.statistics.totalPeak <= 3 * (8 << 20), "\(backend.allocator.statistics.totalPeak)")
        #expect(try #require(record.copyBytesPerSecond) > 0 && record.bytesPerSecond > 0)
        let name = "lm_head.weight"
        let expected = zip(try one.values(name), try two.values(name)).map { (Double($0) + Double($1)) / 2 }
        try expectClose(ModelFolder(path).values(name), expected, within: 1e-6, name)
    }
}
