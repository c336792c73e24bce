import ApusTensor
import Glibc

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

    /// The vocabulary called `name`: `bytes`, or the path of a `tokenizer.json` or of a SentencePiece `.model`.
    ///
    /// - Throws: ``TokenizerError``; what reading a file throws.
    public static func open(_ name: String) throws -> NamedVocabulary {
        if name == "bytes" { return .bytes }
        let vocabulary: any Vocabulary =
            isSentencePiece(name) ? try SentencePieceVocabulary(file: name) : try Tokenizer(file: name)
        return NamedVocabulary(
            vocabulary: vocabulary,
            identity: VocabularyIdentity(
                name: name, size: vocabulary.size, endOfDocument: vocabulary.endOfDocument,
                digest: try FileDigest(ofFile: name).checksum), file: name)
    }

    /// Names of a tokenizer's file in the folder of a model or of prepared data, the preferred one first.
    public static let fileNames = [ShardManifest.tokenizerName, "tokenizer.model"]

    /// The tokenizer's file in a folder; `nil` if there is none.
    public static func file(inFolder folder: String) -> String? {
        fileNames.lazy.map { "\(folder)/\($0)" }.first { access($0, F_OK) == 0 }
    }

    /// What the copy of its file is called in a folder; `nil` if the tokens are bytes.
    var fileName: String? { file.map { Self.fileNames[Self.isSentencePiece($0) ? 1 : 0] } }

    private static func isSentencePiece(_ path: String) -> Bool { path.hasSuffix(".model") }
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
