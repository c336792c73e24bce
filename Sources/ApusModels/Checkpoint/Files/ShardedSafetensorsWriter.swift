public import ApusTensor

/// Writes tensors into a folder as Hugging Face does: `model.safetensors` if one file is enough, else shards
/// `model-00001-of-0000N.safetensors` and their index, which is written last.
public struct ShardedSafetensorsWriter: ~Copyable {
    private let folder: String
    private let base: String
    private let plan: ShardPlan
    private let metadata: [String: String]
    private let writesIndex: Bool
    private var position = 0
    private var writer: SafetensorsWriter
    private var digests: [String: FileDigest] = [:]
    private let shardOf: [String: Int]

    /// - Parameters:
    ///   - folder: an existing folder, best the staging folder of an `AtomicDirectory`.
    ///   - base: "model" in the file names.
    ///   - tensors: what will be written, in this order.
    ///   - maximumShardSize: bytes of tensor data per file; a larger tensor gets a file of its own.
    ///   - metadata: for every file; transformers refuses files without a `format`.
    /// - Throws: what `SafetensorsWriter` throws.
    public init(
        folder: String, base: String = "model", tensors: [TensorSpec], maximumShardSize: Int = 5_000_000_000,
        metadata: [String: String] = ["format": "pt"]
    ) throws(FileError) {
        let folder = withoutTrailingSlashes(folder)
        let plan = try ShardPlan(tensors, limit: maximumShardSize, base: base, path: folder)
        try self.init(folder: folder, base: base, plan: plan, metadata: metadata, writesIndex: plan.shards.count > 1)
    }

    /// Writes the files of `plan`; `folder` has no slash at its end.
    init(
        folder: String, base: String, plan: ShardPlan, metadata: [String: String], writesIndex: Bool
    ) throws(FileError) {
        var shardOf: [String: Int] = [:]
        for (position, shard) in plan.shards.enumerated() {
            for tensor in shard.tensors where shardOf.updateValue(position, forKey: tensor.name) != nil {
                throw .invalidTensor(path: folder, tensor: tensor.name, reason: "is declared twice")
            }
        }
        let first = plan.shards[0]
        writer = try SafetensorsWriter(path: "\(folder)/\(first.name)", tensors: first.tensors, metadata: metadata)
        self.folder = folder
        self.base = base
        self.plan = plan
        self.metadata = metadata
        self.writesIndex = writesIndex
        self.shardOf = shardOf
    }

    /// Appends bytes to a tensor: all of it, or the next piece.
    ///
    /// A tensor of the next file closes the one before.
    ///
    /// - Throws: `writeOutOfOrder`, `noSpace`, `permissionDenied`, `system`.
    public mutating func append(_ bytes: UnsafeRawBufferPointer, to name: String) throws(FileError) {
        guard let target = shardOf[name] else {
            throw .writeOutOfOrder(path: folder, reason: "\(quoted(name)) was written but never declared")
        }
        if target < position {
            throw .writeOutOfOrder(path: folder, reason: "\(quoted(name)) belongs to a file that is closed")
        }
        while position < target { try openNextShard() }
        try writer.append(bytes, to: name)
    }

    /// Closes the last file and writes the index.
    ///
    /// - Returns: size and checksum of every file written, for a manifest.
    /// - Throws: as `append`.
    public consuming func finish() throws(FileError) -> [String: FileDigest] {
        while position < plan.shards.count - 1 { try openNextShard() }
        var digests = digests
        digests[plan.shards[position].name] = try writer.finish()
        if writesIndex {
            let name = ShardPlan.indexName(base)
            digests[name] = try AtomicFile.write(SafetensorsIndex.encode([plan]), to: "\(folder)/\(name)")
        }
        return digests
    }

    private mutating func openNextShard() throws(FileError) {
        let next = plan.shards[position + 1]
        var finished = try SafetensorsWriter(
            path: "\(folder)/\(next.name)", tensors: next.tensors, metadata: metadata)
        swap(&writer, &finished)
        digests[plan.shards[position].name] = try finished.finish()
        position += 1
    }
}
