package import ApusTensor

/// Files beside the weights that belong to a model but that Apus does not compute with.
package enum CompanionFiles {
    /// Tokenizers in every form that Hugging Face folders have, and the defaults of generation.
    package static let names = [
        "added_tokens.json", "chat_template.jinja", "chat_template.json", "generation_config.json", "merges.txt",
        "special_tokens_map.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json",
        "vocab.txt",
    ]

    /// Copies those that are there.
    ///
    /// - Returns: what a manifest needs to check them.
    package static func copy(from source: String, to target: String) throws(CheckpointFileError) -> [String: FileDigest]
    {
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
