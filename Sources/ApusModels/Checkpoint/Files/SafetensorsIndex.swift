import ApusTensor

/// `model.safetensors.index.json`: which shard holds which tensor.
struct SafetensorsIndex: Sendable {
    let path: String
    /// Shard file name by tensor name.
    let weightMap: [String: String]

    /// - Throws: what `FileContents` throws, `malformed`, `unsafeFileName`.
    init(path: String) throws(FileError) {
        self = try FileContents(path: path).withUnsafeBytes { text throws(FileError) in
            try SafetensorsIndex(path: path, text)
        }
    }

    /// - Parameter text: the whole file.
    init(path: String, _ text: UnsafeRawBufferPointer) throws(FileError) {
        self.path = path
        var map: [String: String]?
        do throws(JSONScanner.Fault) {
            var scanner = JSONScanner(text)
            var object = try scanner.beginObject()
            while let key = try scanner.nextKey(in: &object) {
                if key != "weight_map" {
                    // `metadata` is for information: peers write its sizes as integers, as floats or not at all.
                    try scanner.skipValue()
                } else if map == nil {
                    map = try scanner.stringMap()
                } else {
                    throw scanner.fault("'weight_map' is there twice")
                }
            }
            try scanner.end()
        } catch {
            throw .malformed(path: path, offset: error.offset, reason: "safetensors index: \(error.reason)")
        }
        guard let map else { throw .malformed(path: path, offset: nil, reason: "has no 'weight_map'") }
        for shard in map.values where !isPlainFileName(shard) { throw .unsafeFileName(path: path, name: shard) }
        weightMap = map
    }

    /// Each shard with its tensors, both in the order of names.
    var shards: [(name: String, tensors: [String])] {
        var tensors: [String: [String]] = [:]
        for (tensor, shard) in weightMap { tensors[shard, default: []].append(tensor) }
        return tensors.map { (name: $0.key, tensors: $0.value.sorted()) }.sorted { $0.name < $1.name }
    }

    /// The text of an index over planned shards, those of one writer or of several.
    static func encode(_ plans: [ShardPlan]) -> String {
        var places: [(tensor: String, shard: String)] = []
        for shard in plans.flatMap(\.shards) { places += shard.tensors.map { ($0.name, shard.name) } }
        let lines = places.sorted { $0.tensor < $1.tensor }
            .map { "    \(jsonString($0.tensor)): \(jsonString($0.shard))" }
        return """
            {
              "metadata": {
                "total_size": \(plans.reduce(0) { $0 + $1.byteCount })
              },
              "weight_map": {
            \(lines.joined(separator: ",\n"))
              }
            }

            """
    }
}
