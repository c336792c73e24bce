public import ApusKernels
public import ApusNN
public import ApusTensor

/// A model on its way from one form of folder to another: Apus' own, or that of a Hugging Face family.
///
/// Tensors are copied one by one, never all in memory. Elements keep their bits unless another type is asked for; what
/// another type cannot hold exactly is kept in `f32`, so that a bf16 model with an `f32` router loses nothing.
public struct ModelConversion {
    /// Where the model comes from.
    public let source: ModelFolder
    /// The family of the new folder; `nil` for Apus' own form.
    public let family: HubFamily?
    /// The type of the new weights: `f32` or `bf16`.
    public let type: DType
    private let weights: StoredWeights
    private let roles: [String: ParameterRole]

    /// - Parameter type: By default `bf16` when all weights are, routers aside, else `f32`.
    /// - Throws: ``FileError``; ``TensorMapError`` for tensors that are missing, left over or of another shape;
    ///   ``ModelConfigurationError`` when the family cannot express the model.
    public init(_ source: ModelFolder, to family: HubFamily?, type: DType? = nil) throws {
        try family?.check(source.configuration.configuration)
        self.source = source
        self.family = family
        weights = try StoredWeights(source)
        roles = Dictionary(weights.parameters.map { ($0.name, $0.role) }) { first, _ in first }
        self.type = try type ?? weights.commonType()
    }

    /// The precision in which source and result are the same model.
    public var precision: Precision { type == .bf16 ? .bf16 : .f32 }

    /// Writes the new folder: weights, `config.json`, and the tokenizer and generation files that were beside the source.
    ///
    /// - Parameter check: Sees the folder complete, before it gets its name; what it throws leaves nothing behind.
    /// - Throws: ``FileError/alreadyExists(path:)`` and what else goes wrong with files; what `check` throws.
    public func write(
        to folder: String, backend: any Backend, maximumShardSize: Int = 5_000_000_000, check: (String) throws -> Void
    ) throws {
        if try FolderTree.kind(folder) != nil { throw FileError.alreadyExists(path: folder) }
        let directory = try AtomicDirectory(path: folder)
        let staging = directory.stagingPath
        var digests = try writeWeights(to: staging, backend, maximumShardSize)
        digests.merge(try CompanionFiles.copy(from: source.path, to: staging)) { first, _ in first }
        digests["config.json"] = try AtomicFile.write(configurationText(), to: "\(staging)/config.json")
        if family == nil { try CheckpointManifest(files: digests).write(toFolder: staging) }
        try check(staging)
        try directory.publish()
    }

    private func writeWeights(to staging: String, _ backend: any Backend, _ limit: Int) throws -> [String: FileDigest] {
        let written = HubTensorMap(family: family, configuration: source.configuration.configuration).written
        let specs = try written.map { placement in
            TensorSpec(
                name: placement.hubName, dtype: try newType(placement.slices[0].name, backend),
                shape: placement.hubShape)
        }
        var writer = try ShardedSafetensorsWriter(folder: staging, tensors: specs, maximumShardSize: limit)
        for (placement, spec) in zip(written, specs) {
            let stored = try weights.elements(of: placement.slices[0].name, backend: backend)
            guard stored.dtype != spec.dtype else {
                try writer.append(stored, to: spec.name, backend: backend)
                continue
            }
            let converted = try backend.empty(stored.shape, spec.dtype, .workspace)
            try backend.convert(stored, into: converted)
            try writer.append(converted, to: spec.name, backend: backend)
        }
        return try writer.finish()
    }

    /// The type asked for, but `f32` for a router whose values `bf16` would change; Apus' own routers are `f32` always.
    private func newType(_ name: String, _ backend: any Backend) throws -> DType {
        guard type == .bf16, roles[name] == .router else { return type }
        guard family != nil else { return .f32 }
        let stored = try weights.elements(of: name, backend: backend)
        guard stored.dtype == .f32 else { return .bf16 }
        return try backend.array(stored, of: Float.self).allSatisfy { $0.bitPattern & 0xffff == 0 } ? .bf16 : .f32
    }

    private func configurationText() throws -> String {
        let configuration = source.configuration.configuration
        guard let family else { return configuration.json() }
        // Apus' own form names no special ids; they are kept in the generation defaults beside it.
        let tokens =
            source.configuration.family == nil
            ? try GenerationDefaults(folder: source.path).tokens : source.configuration.tokens
        return try family.json(configuration, dtype: type, tokens: tokens)
    }
}
