import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusInference

/// A model written by Hugging Face's own code, with two prompts and the 16 tokens that transformers generated after each
/// (`Tools/oracles/README.md`, "tiny_models.py").
struct GoldenGeneration {
    static let families = ["mixtral", "olmoe", "qwen3_moe", "deepseek_v2", "deepseek_v3"]

    let backend: CPUBackend
    let model: Transformer
    let prompts: [[Int32]]
    let continuations: [[Int32]]
    private let file: SafetensorsFile

    init(_ family: String, batchInvariant: Bool = false) throws {
        let folder = try goldenFolder(family)
        backend = CPUBackend(batchInvariant: batchInvariant)
        model = try ModelFolder(folder).load(backend: backend)
        let file = try SafetensorsFile(path: "\(folder)/golden.safetensors")
        prompts = try (0..<2).map { try file.int32Values("generate.prompt.\($0)") }
        continuations = try (0..<2).map { try file.int32Values("generate.tokens.\($0)") }
        self.file = file
    }

    /// Sequences (B, S) of the case `plain`, where no token is masked.
    func plainSequences() throws -> [[Int32]] {
        let shape = try file.entry("plain.input_ids").shape
        let ids = try file.int32Values("plain.input_ids")
        return (0..<shape[0]).map { Array(ids[$0 * shape[1]..<($0 + 1) * shape[1]]) }
    }

    func floats(_ name: String) throws -> [Float] { try file.floatValues(name) }
}

/// A model with random weights, large enough that its choices are not all alike.
func randomModel(
    _ backend: CPUBackend, vocabulary: Int = 96, context: Int = 200, precision: Precision = .f32,
    position: ModelConfiguration.Position = .rotary(theta: 10_000), slidingWindow: Int? = nil, width: Int = 48
) throws -> Transformer {
    let configuration = ModelConfiguration(
        vocabulary: vocabulary, width: width, heads: 4, keyValueHeads: 2, maximumPositions: context, position: position,
        slidingWindow: slidingWindow,
        feedForward: [
            .moe(MoEConfiguration(experts: 5, choices: 2, width: width * 5 / 6)), .dense(width: width * 3 / 2),
        ], initialDeviation: 1.7 / Float(width).squareRoot())
    let model = try Transformer(configuration, backend: backend, precision: precision, isTrained: false)
    try model.store.initialize(seed: 7, backend: backend)
    return model
}

/// The same with experts that read an earlier state: by every position, also beside the present one.
func shortcutModel(_ backend: CPUBackend, _ shortcut: ShortcutConfiguration) throws -> Transformer {
    var moe = MoEConfiguration(experts: 5, choices: 2, width: 40, sharedWidth: 40, sharedCombination: .gate)
    moe.shortcut = shortcut
    if shortcut.isDual { (moe.choices, moe.sharedWidth, moe.sharedCombination) = (1, 0, .sum) }
    var second = moe
    second.parametersOf = shortcut.isDual ? 1 : nil
    let configuration = ModelConfiguration(
        vocabulary: 96, width: 48, heads: 4, keyValueHeads: 2, maximumPositions: 200,
        feedForward: [.dense(width: 72), .moe(moe), .dense(width: 72), .moe(second)],
        initialDeviation: 1.7 / Float(48).squareRoot())
    let model = try Transformer(configuration, backend: backend, precision: .f32, isTrained: false)
    try model.store.initialize(seed: 7, backend: backend)
    return model
}

/// `count` ids below `vocabulary`.
func randomTokens(_ count: Int, vocabulary: Int = 96, seed: UInt64) -> [Int32] {
    var generator = SeededGenerator(seed: seed)
    return (0..<count).map { _ in Int32.random(in: 0..<Int32(vocabulary), using: &generator) }
}
