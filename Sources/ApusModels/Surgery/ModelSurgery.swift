public import ApusKernels
import ApusNN
public import ApusTensor

/// A model that is made of the tensors of stored ones: everything is decided and checked, nothing is written yet.
///
/// ``Upcycling``, ``Aggregation`` and ``Pruning`` make one. Tensors are written one after the other; of each there is a
/// piece of a few MB in memory at a time.
public struct ModelSurgery {
    /// The new model.
    public let configuration: ModelConfiguration
    /// The type of its weights: `f32` or `bf16`. Routers are `f32`.
    public let type: DType
    let sources: [StoredWeights]
    /// By tensor of the new model.
    let origins: [String: TensorOrigin]
    private let parameters: [ParameterDescription]

    /// - Parameter origin: Where each tensor of the new model comes from.
    /// - Throws: ``ModelConfigurationError`` for a model that cannot be; ``FileError``; what `origin` throws.
    init(
        _ configuration: ModelConfiguration, of sources: [StoredWeights],
        origin: (ParameterDescription) throws -> TensorOrigin
    ) throws {
        try configuration.checkSizes()
        self.configuration = configuration
        self.sources = sources
        parameters = configuration.parameterInventory()
        origins = Dictionary(uniqueKeysWithValues: try parameters.map { ($0.name, try origin($0)) })
        type = try sources.allSatisfy { try $0.commonType() == .bf16 } ? .bf16 : .f32
    }

    /// What writing a model came to.
    public struct Record: Sendable {
        /// Bytes of the files with weights.
        public let bytes: Int
        /// Seconds from the first byte to the last one being on storage.
        public let seconds: Double
        /// What the same storage took of a plain copy just before, in bytes a second; `nil` where nothing was to copy.
        public let copyBytesPerSecond: Double?

        /// Bytes written a second.
        public var bytesPerSecond: Double { Double(bytes) / max(seconds, 1e-9) }
    }

    /// - Throws: ``FileError/alreadyExists(path:)`` where the new folder cannot get its name.
    public static func requireFree(_ folder: String) throws(FileError) {
        if try FolderTree.kind(folder) != nil { throw .alreadyExists(path: folder) }
    }

    /// Writes the new folder: weights, `config.json`, checksums, and the tokenizer and generation files that were beside the
    /// first source. It appears under its name whole or not at all; folders above it are made.
    ///
    /// - Parameter texts: Further files, by name.
    /// - Throws: ``FileError``; ``TensorError`` when memory runs out.
    public func write(
        to folder: String, texts: [String: String] = [:], backend: any Backend,
        maximumShardSize: Int = 5_000_000_000
    ) throws -> Record {
        try Self.requireFree(folder)
        try RunFolder.create(splitPath(withoutTrailingSlashes(folder)).folder)
        let directory = try AtomicDirectory(path: folder)
        let staging = directory.stagingPath
        let copySpeed = try CopySpeed.measure(of: sources[0].path, in: staging)
        let clock = ContinuousClock()
        let begin = clock.now
        var digests = try writeWeights(to: staging, backend, maximumShardSize)
        let elapsed = (clock.now - begin).components
        let bytes = digests.values.reduce(0) { $0 + $1.count }
        digests.merge(try CompanionFiles.copy(from: sources[0].path, to: staging)) { first, _ in first }
        for (name, text) in texts.merging(["config.json": configuration.json()], uniquingKeysWith: { $1 }) {
            digests[name] = try AtomicFile.write(text, to: "\(staging)/\(name)")
        }
        try CheckpointManifest(files: digests).write(toFolder: staging)
        try directory.publish()
        return Record(
            bytes: bytes, seconds: Double(elapsed.seconds) + Double(elapsed.attoseconds) * 1e-18,
            copyBytesPerSecond: copySpeed)
    }

    private func writeWeights(to staging: String, _ backend: any Backend, _ limit: Int) throws -> [String: FileDigest] {
        let specs = parameters.map {
            TensorSpec(name: $0.name, dtype: $0.role == .router ? .f32 : type, shape: $0.shape)
        }
        var writer = try ShardedSafetensorsWriter(folder: staging, tensors: specs, maximumShardSize: limit)
        let stream = OriginStream(sources: sources, backend: backend)
        for (parameter, spec) in zip(parameters, specs) {
            guard let origin = origins[spec.name] else { preconditionFailure("every tensor has an origin") }
            try stream.forEachPiece(of: origin, count: parameter.count, as: spec.dtype) {
                try writer.append($0, to: spec.name)
            }
        }
        return try writer.finish()
    }
}
