import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusData
@testable import ApusTraining

/// Runs on prepared corpora and mixtures of them.
@Suite struct PreparedDataTests {
    private let scratch: ScratchFolder

    init() throws {
        scratch = try ScratchFolder()
        for (index, name) in ["a.txt", "b.txt"].enumerated() {
            var generator = SeededGenerator(seed: UInt64(index))
            try scratch.write(name, (0..<3000).map { _ in UInt8.random(in: 97...122, using: &generator) })
        }
    }

    private func prepare(_ name: String, _ out: String, digest: UInt64? = nil) throws {
        var vocabulary = NamedVocabulary.bytes
        if let digest {
            var identity = vocabulary.identity
            identity.digest = digest
            vocabulary = NamedVocabulary(vocabulary: ByteVocabulary(), identity: identity, file: nil)
        }
        let preparation = Preparation(
            inputs: ["\(scratch.path)/\(name)"], vocabulary: vocabulary, tokensPerShard: 1000)
        _ = try preparation.write(to: "\(scratch.path)/\(out)", pool: ThreadPool(threadCount: 1))
    }

    private func recipe(_ sources: [DataConfiguration.Source], steps: Int = 4, mask: Bool = false) -> Recipe {
        var model = TrainingCase.all[0].model
        model.vocabulary = 257
        let named = sources.map { DataConfiguration.Source(path: "\(scratch.path)/\($0.path)", weight: $0.weight) }
        return Recipe(
            seed: 7, model: model,
            data: DataConfiguration(sources: named, sequenceLength: 16, heldOut: 0, temperature: 1, documentMask: mask),
            training: TrainingConfiguration(steps: steps, batch: 4, precision: .f32, evaluateEvery: 0),
            output: OutputConfiguration(saveEvery: 2, keep: 2, logEvery: 0))
    }

    @discardableResult
    private func weights(_ recipe: Recipe, _ folder: String, resumes: Bool = false) throws -> [[UInt32]] {
        let run = try TrainingRun(
            recipe, folder: "\(scratch.path)/\(folder)", resumes: resumes, backend: CPUBackend(threadCount: 1))
        #expect(try run.run() == .finished)
        return run.model.store.groups.map(\.weights.bits)
    }

    @Test func `prepared text trains to the same bits as the text itself`() throws {
        try prepare("a.txt", "prepared")
        let text = try weights(recipe([.init(path: "a.txt")]), "text")
        #expect(try weights(recipe([.init(path: "prepared")]), "shards") == text)
        #expect(try weights(recipe([.init(path: "b.txt")]), "other") != text)
    }

    @Test func `a mixture goes on where it stood, masks and all`() throws {
        try prepare("a.txt", "prepared")
        let sources = [DataConfiguration.Source(path: "prepared", weight: 3), .init(path: "b.txt", weight: 1)]
        let whole = try weights(recipe(sources, steps: 6, mask: true), "whole")
        try weights(recipe(sources, steps: 4, mask: true), "parts")
        #expect(try weights(recipe(sources, steps: 6, mask: true), "parts", resumes: true) == whole)
        let other = [DataConfiguration.Source(path: "prepared", weight: 2), .init(path: "b.txt", weight: 1)]
        #expect(throws: TrainingCheckpointError.self) {
            try weights(recipe(other, steps: 8, mask: true), "parts", resumes: true)
        }
    }

    @Test func `sources of different vocabularies, and ones beyond the model's, are refused`() throws {
        try prepare("a.txt", "one", digest: 1)
        try prepare("b.txt", "two", digest: 2)
        let sources = [DataConfiguration.Source(path: "one"), .init(path: "two")]
        let mixed = #expect(throws: DataError.self) { try weights(recipe(sources), "run") }
        #expect(mixed?.description.contains("one tokenizer") == true && mixed?.description.contains("/two'") == true)
        var small = recipe([.init(path: "one")])
        small.model.vocabulary = 200
        let beyond = #expect(throws: DataError.self) { try weights(small, "run") }
        #expect(beyond?.description.contains("model.vocabulary, which is 200, to at least 257") == true)
    }

    @Test func `a shard that changes under a run stops it and harms no checkpoint`() throws {
        try prepare("a.txt", "prepared")
        let recipe = recipe([.init(path: "prepared")], steps: 100)
        let folder = "\(scratch.path)/run"
        let run = try TrainingRun(recipe, folder: folder, resumes: false, backend: CPUBackend(threadCount: 1))
        let shard = "prepared/training-00000.tokens"
        var content = try fileBytes("\(scratch.path)/\(shard)")
        content[200] ^= 1
        try scratch.write(shard, content)
        let error = #expect(throws: DataError.self) { try run.run() }
        #expect(error?.description.contains("training-00000.tokens' ") == true, "\(String(describing: error))")
        for name in folderNames("\(folder)/checkpoints") {
            let checkpoint = "\(folder)/checkpoints/\(name)"
            try CheckpointManifest(folder: checkpoint).verify(folder: checkpoint)
        }
    }
}
