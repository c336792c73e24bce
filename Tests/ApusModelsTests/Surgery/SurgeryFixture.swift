import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusModels

/// Stored models to be cut and joined, and what is in their files.
struct SurgeryFixture {
    let scratch: ScratchFolder
    let backend = CPUBackend(threadCount: 2)

    init() throws { scratch = try ScratchFolder() }

    /// Stores a model with weights drawn from `seed`, after `change` was made to them.
    func store(
        _ configuration: ModelConfiguration, as name: String, seed: UInt64 = 11, _ precision: Precision = .f32,
        maximumShardSize: Int = 5_000_000_000, _ change: (Transformer) throws -> Void = { _ in }
    ) throws -> ModelFolder {
        let model = try Transformer(configuration, backend: backend, precision: precision, isTrained: false)
        try model.store.initialize(seed: seed, backend: backend)
        try change(model)
        let folder = try scratch.makeFolder(name)
        let digests = try model.write(
            toFolder: folder, as: nil, backend: backend, maximumShardSize: maximumShardSize)
        try CheckpointManifest(files: digests).write(toFolder: folder)
        return try ModelFolder(folder)
    }

    /// Writes the result of a surgery and opens it, its checksums compared.
    func write(_ surgery: ModelSurgery, as name: String) throws -> ModelFolder {
        let path = scratch.file(name)
        _ = try surgery.write(to: path, backend: backend)
        try CheckpointManifest(folder: path).verify(folder: path)
        return try ModelFolder(path)
    }

    /// Logits of two sequences, as generation computes them.
    func logits(_ folder: ModelFolder) throws -> [Float] {
        let model = try folder.load(backend: backend)
        let lengths = TransformerFixture.lengths
        var generator = SeededGenerator(seed: 5)
        let ids = (0..<lengths.reduce(0, +)).map { _ in
            Int.random(in: 0..<model.configuration.vocabulary, using: &generator)
        }
        let layout = try TokenLayout.sequences(lengths, backend: backend)
        let tape = Tape(backend: backend, isRecording: false)
        let context = MoEContext(forward: ForwardContext(tape: tape, layout: layout))
        return try model.logits(tokens: backend.allocator.integers(ids), context).floats()
    }

    /// Sets a stored parameter's elements.
    func set(_ name: String, of model: Transformer, to values: [Float]) throws {
        let parameter = try #require(model.store[name])
        try parameter.withWeights(on: backend.stream) { try backend.upload(values, into: $0) }
    }

    /// A decoder of dense layers, small enough to be compared element by element.
    static func dense(_ widths: [Int] = [14, 14, 14, 14]) -> ModelConfiguration {
        ModelConfiguration(
            vocabulary: 20, width: 16, heads: 4, keyValueHeads: 2, maximumPositions: 12,
            feedForward: widths.map { .dense(width: $0) }, initialDeviation: 0.2)
    }

    /// A mixture between two others, of `counts` experts.
    static func mixture(
        _ counts: [Int] = [4, 4], _ change: (inout MoEConfiguration) -> Void = { _ in }
    ) -> ModelConfiguration {
        var model = dense()
        model.feedForward = counts.map { count in
            var moe = MoEConfiguration(experts: count, choices: 2, width: 10)
            change(&moe)
            return .moe(moe)
        }
        return model
    }
}

extension ModelFolder {
    /// The elements of a stored tensor.
    func values(_ name: String) throws -> [Float] {
        try ShardedSafetensors(folder: path).shard(of: name).floatValues(name)
    }

    /// Names of all stored tensors.
    func names() throws -> [String] { try ShardedSafetensors(folder: path).names.sorted() }
}

/// The error that `body` throws, as one of surgery.
func surgeryError(_ body: () throws -> Void) -> SurgeryError? {
    do {
        try body()
        return nil
    } catch { return error as? SurgeryError }
}
