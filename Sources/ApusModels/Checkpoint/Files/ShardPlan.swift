import ApusTensor

/// How tensors are cut into files of a bounded size; known before the first byte is written, since every file's name
/// tells how many there are.
struct ShardPlan: Sendable {
    struct Shard: Sendable {
        let name: String
        let tensors: [TensorSpec]
    }

    let shards: [Shard]
    /// Bytes of all tensors.
    let byteCount: Int

    /// Fills files in order; a tensor over the limit gets one of its own.
    ///
    /// - Parameters:
    ///   - limit: bytes of tensor data per file.
    ///   - path: for messages.
    init(_ tensors: [TensorSpec], limit: Int, base: String, path: String) throws(FileError) {
        var groups: [[TensorSpec]] = [[]]
        var size = 0
        var total = 0
        for tensor in tensors {
            let count = try tensor.byteCount(path: path)
            let (sum, overflow) = total.addingReportingOverflow(count)
            if overflow { throw .invalidTensor(path: path, tensor: tensor.name, reason: "makes the folder too large") }
            total = sum
            if count > 0, size + count > limit, !groups[groups.count - 1].isEmpty {
                groups.append([])
                size = 0
            }
            groups[groups.count - 1].append(tensor)
            size += count
        }
        let count = groups.count
        shards = groups.enumerated().map { position, tensors in
            let name = count == 1 ? Self.singleName(base) : Self.shardName(base, position + 1, of: count)
            return Shard(name: name, tensors: tensors)
        }
        byteCount = total
    }

    private init(shards: [Shard], byteCount: Int) {
        self.shards = shards
        self.byteCount = byteCount
    }

    /// The same files as numbers `first`, `first + 1`, ... of `count`, counted from 1.
    func renumbered(from first: Int, of count: Int, base: String) -> ShardPlan {
        guard count > 1 else { return self }
        return ShardPlan(
            shards: shards.enumerated().map { position, shard in
                Shard(name: Self.shardName(base, first + position, of: count), tensors: shard.tensors)
            }, byteCount: byteCount)
    }

    static func singleName(_ base: String) -> String { "\(base).safetensors" }

    static func indexName(_ base: String) -> String { "\(base).safetensors.index.json" }

    /// Numbers count from 1 and have five digits.
    static func shardName(_ base: String, _ number: Int, of count: Int) -> String {
        "\(base)-\(fiveDigits(number))-of-\(fiveDigits(count)).safetensors"
    }

    private static func fiveDigits(_ number: Int) -> String {
        let digits = String(number)
        return String(repeating: "0", count: max(0, 5 - digits.count)) + digits
    }
}
