public import ApusKernels
public import ApusNN
public import ApusTensor

/// A folder that holds a model: `config.json` and safetensors, Apus' own or of a Hugging Face family.
public struct ModelFolder {
    /// The folder.
    public let path: String
    /// What its `config.json` says.
    public let configuration: CheckpointConfiguration
    /// Tensors of the layer with which DeepSeek-V3 predicts the token after the next: no part of the model's own logits, and
    /// left out.
    public let passedOver: [String]
    private let tensors: ShardedSafetensors
    private let placements: [TensorPlacement]

    /// Opens a folder and finds a place for every tensor in it; weights are mapped, not read.
    ///
    /// - Parameter further: Parameters that a program's own routers add to the configuration's
    ///   (``Transformer/furtherParameters``). A folder with such parameters is refused by who does not name them: without
    ///   their router it would be another model.
    /// - Throws: ``FileError`` for what is wrong with a file, ``ModelConfigurationError`` for the
    ///   configuration, ``TensorMapError`` for tensors that are missing, left over or of another shape.
    public init(_ path: String, further: [ParameterDescription] = []) throws {
        self.path = path
        let file = "\(path)/config.json"
        let text = try FileContents(path: file).text
        configuration = try CheckpointConfiguration(json: text, path: file)
        try configuration.configuration.checkSizes()
        tensors = try ShardedSafetensors(folder: path)
        let map = HubTensorMap(
            family: configuration.family, configuration: configuration.configuration, further: further)
        let entries = tensors.shards.flatMap { $0.entries.map { (name: $0.name, shape: $0.shape) } }
        placements = try map.placements(of: entries)
        passedOver = map.predictionLayer(in: entries.map(\.name))
    }

    /// The type most of the weights are stored in: `bf16` when any tensor is.
    public var storedType: DType {
        tensors.shards.contains { $0.entries.contains { $0.dtype == .bf16 } } ? .bf16 : .f32
    }

    /// The model with its weights.
    ///
    /// - Parameters:
    ///   - precision: In which types; by default those the weights are stored in.
    ///   - positions: Longest sequence to prepare for; the configuration's by default.
    public func load(
        backend: any Backend, precision: Precision? = nil, isTrained: Bool = false, positions: Int? = nil
    ) throws -> Transformer {
        let model = try Transformer(
            configuration.configuration, backend: backend, precision: precision ?? (storedType == .bf16 ? .bf16 : .f32),
            isTrained: isTrained, positions: positions)
        try loadWeights(into: model.store, backend: backend)
        return model
    }

    /// Fills a store's parameters, converting to their types. Tensors and stages that the store has not are passed over,
    /// and of a parameter of which it holds a part the rest is not read.
    public func loadWeights(into store: ParameterStore, backend: any Backend) throws {
        for placement in placements {
            let wanted = placement.slices.filter { store[$0.name] != nil }
            guard !wanted.isEmpty else { continue }
            let isWhole = wanted.contains { store[$0.name]?.shard == nil }
            let source = isWhole ? try stored(placement.hubName, backend) : nil
            for slice in wanted {
                guard let parameter = store[slice.name] else { continue }
                let weights = try parameter.acquire(on: backend.stream)
                defer { parameter.release(on: backend.stream) }
                if parameter.shard == nil, let source {
                    try backend.convert(source[slice.elements], into: weights)
                } else {
                    let runs = parameter.runs(of: 0..<parameter.localShape.count).map { run in
                        slice.elements.lowerBound + run.whole..<slice.elements.lowerBound + run.whole + run.held.count
                    }
                    try backend.convert(stored(placement.hubName, runs, backend), into: weights)
                }
            }
        }
    }

    /// The elements of a stored tensor, flat, in a type that kernels read.
    private func stored(_ name: String, _ backend: any Backend) throws -> Tensor {
        let entry = try tensors.entry(name)
        guard let dtype = entry.dtype, dtype.isFloating else {
            // F16 and the like are widened exactly; what cannot be is refused by name.
            let values = try tensors.shard(of: name).floatValues(name)
            return try backend.tensor(values, Shape(values.count), .workspace)
        }
        let target = try backend.empty(Shape(entry.count), dtype, .workspace)
        try tensors.bytes(name).withUnsafeBytes { try backend.upload($0, into: target) }
        return target
    }

    /// Some elements of a stored tensor, one run of them after the other.
    private func stored(_ name: String, _ runs: [Range<Int>], _ backend: any Backend) throws -> Tensor {
        let entry = try tensors.entry(name)
        let count = runs.reduce(0) { $0 + $1.count }
        guard let dtype = entry.dtype, dtype.isFloating else {
            let values = try tensors.shard(of: name).floatValues(name)
            return try backend.tensor(runs.flatMap { values[$0] }, Shape(count), .workspace)
        }
        let target = try backend.empty(Shape(count), dtype, .workspace)
        let size = dtype.byteCount(elements: 1)
        try tensors.bytes(name).withUnsafeBytes { bytes in
            let parts = runs.map {
                UnsafeRawBufferPointer(rebasing: bytes[$0.lowerBound * size..<$0.upperBound * size])
            }
            if parts.count == 1 { return try backend.upload(parts[0], into: target) }
            var held: [UInt8] = []
            held.reserveCapacity(count * size)
            for part in parts { held.append(contentsOf: part) }
            try held.withUnsafeBytes { try backend.upload($0, into: target) }
        }
        return target
    }
}

extension ShardedSafetensorsWriter {
    /// Appends a dense tensor whole.
    ///
    /// - Throws: ``FileError``; what the device's copies throw.
    public mutating func append(_ tensor: Tensor, to name: String, backend: any Backend) throws {
        try backend.forEachPiece(of: tensor) { try append($0, to: name) }
    }
}

extension Transformer {
    /// Writes the weights into an existing folder as safetensors, under the names of `family` (`nil` for Apus' own), with
    /// the `config.json` that goes with them; returns the digests of the files with weights.
    ///
    /// - Throws: ``FileError``; ``ModelConfigurationError`` when the family cannot express the model.
    @discardableResult
    public func write(
        toFolder folder: String, as family: HubFamily?, tokens: SpecialTokens = SpecialTokens(), backend: any Backend,
        maximumShardSize: Int = 5_000_000_000
    ) throws -> [String: FileDigest] {
        // Refused before the first byte is written.
        try family?.check(configuration)
        if let family, let parameter = furtherParameters.first {
            throw ModelConfigurationError.notExpressible(
                family: family, key: parameter.name, found: "a parameter of the program's own router", others: [])
        }
        let map = HubTensorMap(family: family, configuration: configuration, further: furtherParameters)
        let dtype = store.precision.modelType
        let specs = map.written.map {
            TensorSpec(name: $0.hubName, dtype: fileType($0, dtype, family), shape: $0.hubShape)
        }
        var writer = try ShardedSafetensorsWriter(folder: folder, tensors: specs, maximumShardSize: maximumShardSize)
        for (placement, spec) in zip(map.written, specs) {
            guard let parameter = store[placement.slices[0].name] else {
                preconditionFailure("the store holds the whole model")
            }
            try parameter.withWeights(on: backend.stream) { weights in
                var source = weights
                if weights.dtype != spec.dtype {
                    source = try backend.empty(weights.shape, spec.dtype, .workspace)
                    try backend.convert(weights, into: source)
                }
                try writer.append(source, to: placement.hubName, backend: backend)
            }
        }
        var digests = try writer.finish()
        let text: String
        if let family {
            text = try family.json(configuration, dtype: dtype, tokens: tokens)
        } else {
            text = configuration.json()
        }
        digests["config.json"] = try AtomicFile.write(text, to: "\(folder)/config.json")
        return digests
    }

    /// Families' files hold one type throughout; Apus' own keep the router's `f32`.
    private func fileType(_ placement: TensorPlacement, _ model: DType, _ family: HubFamily?) -> DType {
        guard family == nil, let parameter = store[placement.slices[0].name] else { return model }
        return parameter.role == .router ? .f32 : model
    }
}

extension ShardedSafetensors {
    /// Copies a stored tensor into a dense tensor of the same type and number of elements.
    ///
    /// - Throws: ``FileError/noSuchTensor(path:tensor:known:)``, or ``FileError/invalidTensor(path:tensor:reason:)``
    ///   when type or size differ; what the device's copies throw.
    public func read(_ name: String, into target: Tensor, backend: any Backend) throws {
        let entry = try entry(name)
        guard entry.dtype == target.dtype, entry.count == target.count, target.isContiguous else {
            throw FileError.invalidTensor(
                path: folder, tensor: name,
                reason: "is \(entry.stored) \(entry.shape) and not \(target.dtype) \(target.shape)")
        }
        try bytes(name).withUnsafeBytes { try backend.upload($0, into: target) }
    }
}
