import ApusTensor

/// A vocabulary with what tells it from others: the one place where the name of a vocabulary becomes one.
public struct NamedVocabulary: Sendable {
    /// Turns bytes into ids and back.
    public let vocabulary: any Vocabulary
    /// What manifests say of it.
    public let identity: VocabularyIdentity
    /// The tokenizer's file; `nil` if the tokens are bytes.
    public let file: String?

    /// The bytes.
    public static let bytes: NamedVocabulary = {
        let vocabulary = ByteVocabulary()
        let digest = Array("bytes".utf8).withUnsafeBytes { XXH64.checksum($0) }
        return NamedVocabulary(
            vocabulary: vocabulary,
            identity: VocabularyIdentity(
                name: "bytes", size: vocabulary.size, endOfDocument: vocabulary.endOfDocument, digest: digest),
            file: nil)
    }()

    /// The vocabulary called `name`: `bytes`, or the path of a tokenizer's file.
    ///
    /// - Throws: ``TokenizerError``.
    public static func open(_ name: String) throws -> NamedVocabulary {
        if name == "bytes" { return .bytes }
        let tokenizer = try Tokenizer(file: name)
        return NamedVocabulary(
            vocabulary: tokenizer,
            identity: VocabularyIdentity(
                name: name, size: tokenizer.size, endOfDocument: tokenizer.endOfDocument,
                digest: try FileDigest(ofFile: name).checksum), file: name)
    }
}

extension ShardSet {
    /// The vocabulary of a prepared corpus.
    ///
    /// - Throws: ``DataError`` when the tokenizer's file is not the one that the corpus was prepared with.
    public func vocabulary() throws -> NamedVocabulary {
        let named = try tokenizerFile.map { try NamedVocabulary.open($0) } ?? .bytes
        guard named.identity.digest == manifest.vocabulary.digest else {
            throw DataError.fileChanged(
                path: tokenizerFile ?? path,
                what: "is not the tokenizer that the corpus was prepared with, '\(manifest.vocabulary.name)'")
        }
        return named
    }
}
