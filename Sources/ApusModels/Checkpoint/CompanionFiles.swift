/// Files beside the weights that belong to a model but that Apus does not compute with.
enum CompanionFiles {
    /// Tokenizers in every form that Hugging Face folders have, and the defaults of generation.
    static let names = [
        "added_tokens.json", "chat_template.jinja", "chat_template.json", "generation_config.json", "merges.txt",
        "special_tokens_map.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json",
        "vocab.txt",
    ]

    /// Copies those that are there.
    ///
    /// - Returns: what a manifest needs to check them.
    static func copy(from source: String, to target: String) throws(CheckpointFileError) -> [String: FileDigest] {
        var digests: [String: FileDigest] = [:]
        for name in names where try FolderTree.kind("\(source)/\(name)") != nil {
            let content = try MappedFile(path: "\(source)/\(name)")
            var file = try AtomicFile(path: "\(target)/\(name)")
            try content.withUnsafeBytes { bytes throws(CheckpointFileError) in try file.write(bytes) }
            digests[name] = try file.publish()
        }
        return digests
    }
}

extension SpecialTokens {
    /// The ids that a folder's `generation_config.json` names; none when there is no such file.
    ///
    /// - Throws: ``CheckpointFileError``; ``ModelConfigurationError`` for a file that is not what it should be.
    public init(generationDefaultsOf folder: String) throws {
        let path = "\(folder)/generation_config.json"
        guard try FolderTree.kind(path) != nil else {
            self.init()
            return
        }
        let text = try MappedFile(path: path).withUnsafeBytes { String(decoding: $0, as: UTF8.self) }
        let fields = try JSONFields(JSONValue(parsing: text, path: path), path: path)
        var ends: [Int] = []
        switch fields.value("eos_token_id") {
        case .array(let ids)?:
            for case .integer(let id) in ids where id >= 0 { ends.append(id) }
        case .integer(let id)? where id >= 0: ends = [id]
        default: break
        }
        try self.init(
            beginning: fields.optionalInteger("bos_token_id"), ends: ends,
            padding: fields.optionalInteger("pad_token_id", from: -1).flatMap { $0 < 0 ? nil : $0 })
    }
}
