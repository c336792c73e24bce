package import ApusTensor

/// Files beside the weights that belong to a model but that Apus does not compute with.
package enum CompanionFiles {
    /// Tokenizers in every form that Hugging Face folders have, and the defaults of generation.
    package static let names = [
        "added_tokens.json", "chat_template.jinja", "chat_template.json", "generation_config.json", "merges.txt",
        "special_tokens_map.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json",
        "vocab.txt",
    ]

    /// The contents, by name, of those that are in a folder.
    package static func read(from folder: String) throws(FileError) -> [String: FileContents] {
        var contents: [String: FileContents] = [:]
        for name in names where try FolderTree.kind("\(folder)/\(name)") != nil {
            contents[name] = try FileContents(path: "\(folder)/\(name)")
        }
        return contents
    }

    /// Writes files into a folder.
    ///
    /// - Returns: what a manifest needs to check them.
    package static func write(
        _ contents: [String: FileContents], to folder: String
    ) throws(FileError) -> [String: FileDigest] {
        var digests: [String: FileDigest] = [:]
        for (name, content) in contents.sorted(by: { $0.key < $1.key }) {
            var file = try AtomicFile(path: "\(folder)/\(name)")
            try file.write(content.bytes)
            digests[name] = try file.publish()
        }
        return digests
    }

    /// Copies those that are there.
    ///
    /// - Returns: what a manifest needs to check them.
    package static func copy(from source: String, to target: String) throws(FileError) -> [String: FileDigest] {
        try write(try read(from: source), to: target)
    }
}
