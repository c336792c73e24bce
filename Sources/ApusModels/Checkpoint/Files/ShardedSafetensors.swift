public import ApusTensor

/// The tensors of a folder in the Hugging Face layout: one `model.safetensors`, or `model.safetensors.index.json` and
/// the shards it names.
///
/// Index and shards must agree: each tensor is where the index says, and no shard holds one the index leaves out.
public final class ShardedSafetensors: Sendable {
    /// The folder, without a slash at its end.
    public let folder: String
    /// The files, each once, in the order of their names.
    public let shards: [SafetensorsFile]
    private let locations: [String: Int]

    /// - Parameter base: "model" in the file names; another word finds, say, the optimizer's shards beside it.
    /// - Throws: `malformed` if there is both a single file and an index, `notFound` (naming the index, if neither file is there), `missingShard`, `notInShard`, `notInIndex`,
    ///   `unsafeFileName`, `malformed`, or what `SafetensorsFile` throws.
    public init(folder: String, base: String = "model") throws(FileError) {
        let folder = withoutTrailingSlashes(folder)
        self.folder = folder
        let single = "\(folder)/\(ShardPlan.singleName(base))"
        if try FolderTree.kind(single) != nil {
            let index = "\(folder)/\(ShardPlan.indexName(base))"
            guard try FolderTree.kind(index) == nil else {
                throw .malformed(
                    path: index, offset: nil,
                    reason: "'\(ShardPlan.singleName(base))' lies beside it, and either may be the model; remove one")
            }
            let file = try SafetensorsFile(path: single)
            shards = [file]
            locations = Dictionary(uniqueKeysWithValues: file.entries.map { ($0.name, 0) })
            return
        }
        let index = try SafetensorsIndex(path: "\(folder)/\(ShardPlan.indexName(base))")
        var shards: [SafetensorsFile] = []
        var locations: [String: Int] = [:]
        for (shard, tensors) in index.shards {
            let path = "\(folder)/\(shard)"
            if try FolderTree.kind(path) == nil {
                throw .missingShard(index: index.path, shard: shard, tensor: tensors[0])
            }
            let file = try SafetensorsFile(path: path)
            for name in tensors where !file.contains(name) {
                throw .notInShard(index: index.path, shard: shard, tensor: name)
            }
            for entry in file.entries where index.weightMap[entry.name] != shard {
                throw .notInIndex(index: index.path, shard: shard, tensor: entry.name)
            }
            for name in tensors { locations[name] = shards.count }
            shards.append(file)
        }
        self.shards = shards
        self.locations = locations
    }

    /// Tensor names, in the order of the files and of the bytes in them.
    public var names: [String] { shards.flatMap(\.names) }

    /// Whether one of the files holds a tensor of this name.
    public func contains(_ name: String) -> Bool { locations[name] != nil }

    /// The file that holds a tensor; its methods give entry, bytes and converted values.
    ///
    /// - Throws: `noSuchTensor`.
    public func shard(of name: String) throws(FileError) -> SafetensorsFile {
        guard let position = locations[name] else {
            throw .noSuchTensor(path: folder, tensor: name, known: Array(shards.lazy.flatMap(\.names).prefix(3)))
        }
        return shards[position]
    }

    /// - Throws: `noSuchTensor`.
    public func entry(_ name: String) throws(FileError) -> SafetensorsEntry {
        try shard(of: name).entry(name)
    }

    /// The stored bytes of a tensor.
    ///
    /// - Throws: `noSuchTensor`.
    public func bytes(_ name: String) throws(FileError) -> FileBytes {
        try shard(of: name).bytes(name)
    }
}
