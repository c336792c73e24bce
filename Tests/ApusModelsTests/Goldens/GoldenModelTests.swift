import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

/// Models written by Hugging Face's own code (`Tools/oracles/tiny_models.py`), read through the importer.
@Suite struct GoldenModelTests {
    static let families = ["mixtral", "olmoe", "qwen3_moe", "deepseek_v2", "deepseek_v3"]

    @Test(arguments: families, ["plain", "masked"])
    func `logits, loss and every gradient are those of transformers`(_ family: String, _ kind: String) throws {
        let golden = try Golden(family)
        let backend = CPUBackend()
        let model = try ModelFolder(golden.folder).load(backend: backend, isTrained: true)
        let batch = try GoldenBatch(golden, kind, backend)

        let idle = Tape(backend: backend, isRecording: false)
        let logits = try model.logits(tokens: batch.tokens, batch.context(on: idle))
        let expected = try golden.floats("\(kind).logits")
        #expect(relativeError(batch.select(logits.floats()), batch.select(expected)) < 1e-5)

        let tape = Tape(backend: backend)
        let result = try model.loss(
            tokens: batch.tokens, targets: batch.targets, scale: batch.scale, batch.context(on: tape))
        let languageModel = try golden.floats("\(kind).lm_loss")[0]
        #expect(abs(result.loss.tensor.floats()[0] - languageModel) < 1e-5 * languageModel)
        // DeepSeek's models have no balance loss in transformers.
        #expect((result.pooledBalance == nil) == family.hasPrefix("deepseek"))
        if let pooled = result.pooledBalance?.floats()[0] {
            let balance = try golden.floats("\(kind).balance_loss")[0]
            #expect(abs(pooled - balance) < 1e-5 * balance)
        }

        try tape.backward()
        let map = HubTensorMap(
            family: try ModelFolder(golden.folder).configuration.family, configuration: model.configuration)
        for parameter in model.store.parameters where !parameter.name.hasSuffix("e_score_correction_bias") {
            // (The bias enters the choice alone and has no gradient.)
            let wanted = try golden.floats("\(kind).grad.\(map.hubName(parameter.name))")
            let gradient = try #require(try parameter.gradient())
            let error = relativeError(gradient.floats(), wanted)
            #expect(error < 1e-4, "\(parameter.name): \(error)")
        }
    }
}

extension GoldenModelTests {
    /// The same weights with the rotary elements paired by halves.
    @Test func `DeepSeek-V3 without interleaved pairs`() throws {
        let golden = try Golden("deepseek_v3")
        let backend = CPUBackend()
        let text = try #require(textFile("\(golden.folder)/config.halves.json"))
        let configuration = try CheckpointConfiguration(json: text).configuration
        #expect(configuration.latent?.pairing == .halves)
        let model = try Transformer(configuration, backend: backend, precision: .f32, isTrained: false)
        try ModelFolder(golden.folder).loadWeights(into: model.store, backend: backend)
        let batch = try GoldenBatch(golden, "halves", backend)
        let logits = try model.logits(
            tokens: batch.tokens, batch.context(on: Tape(backend: backend, isRecording: false)))
        #expect(relativeError(batch.select(logits.floats()), batch.select(try golden.floats("halves.logits"))) < 1e-5)
        #expect(relativeError(batch.select(logits.floats()), batch.select(try golden.floats("plain.logits"))) > 1e-2)
    }
}

/// A folder under `Tests/Goldens` and the tensors of its `golden.safetensors`.
struct Golden {
    let folder: String
    private let file: SafetensorsFile

    init(_ name: String, file: String = "golden.safetensors") throws {
        folder = try goldenFolder(name)
        self.file = try SafetensorsFile(path: "\(folder)/\(file)")
    }

    func floats(_ name: String) throws -> [Float] { try file.floatValues(name) }
    func integers(_ name: String) throws -> [Int32] { try file.int32Values(name) }
    func shape(_ name: String) throws -> [Int] { try file.entry(name).shape }
}

/// A golden batch (B, S), its padding left in as Hugging Face computes it: padded keys are on the right, so causal
/// queries of real tokens never see them.
struct GoldenBatch {
    let tokens: Tensor
    let targets: Tensor
    let scale: Float
    private let layout: TokenLayout
    private let mask: [Int32]
    private let width: Int

    init(_ golden: Golden, _ kind: String, _ backend: CPUBackend) throws {
        let shape = try golden.shape("\(kind).input_ids")
        let ids = try golden.integers("\(kind).input_ids")
        let labels = try golden.integers("\(kind).labels")
        mask = try golden.integers("\(kind).attention_mask")
        // Position t predicts label t + 1; the last has nothing to predict.
        let shifted = (0..<ids.count).map { ($0 + 1) % shape[1] == 0 ? -100 : labels[$0 + 1] }
        tokens = try backend.allocator.tensor(ids, Shape(ids.count))
        targets = try backend.allocator.tensor(shifted, Shape(shifted.count))
        scale = 1 / Float(shifted.count { $0 >= 0 })
        let counted = mask.contains(0) ? try backend.allocator.tensor(mask.map(UInt8.init), Shape(mask.count)) : nil
        layout = try TokenLayout.sequences(
            Array(repeating: shape[1], count: shape[0]), tokenMask: counted, backend: backend)
        width = try golden.shape("\(kind).logits")[2]
    }

    func context(on tape: Tape) -> MoEContext {
        let counted = mask.count { $0 != 0 }
        return MoEContext(forward: ForwardContext(tape: tape, layout: layout), globalTokens: counted)
    }

    /// The rows of (B * S, V) that belong to real tokens.
    func select(_ logits: [Float]) -> [Float] {
        mask.indices.filter { mask[$0] != 0 }.flatMap { logits[$0 * width..<($0 + 1) * width] }
    }
}
