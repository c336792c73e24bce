public import ApusTensor

/// Which side of the held-out split a document is on.
public enum CorpusPart: String, Sendable, CaseIterable {
    /// What is trained on.
    case training
    /// What is kept for evaluation.
    case heldOut = "held-out"
}

/// What gave the tokens of a corpus their ids.
public struct VocabularyIdentity: Sendable, Equatable {
    /// `bytes`, or the path of the tokenizer's file when the corpus was prepared.
    public var name: String
    /// Ids are below this.
    public var size: Int
    /// The id after each document; `nil` if there is none.
    public var endOfDocument: Int32?
    /// Tells vocabularies apart: XXH64 of the tokenizer's file.
    public var digest: UInt64

    /// An identity of these parts.
    public init(name: String, size: Int, endOfDocument: Int32?, digest: UInt64) {
        self.name = name
        self.size = size
        self.endOfDocument = endOfDocument
        self.digest = digest
    }
}

/// `manifest.json` of a prepared corpus: what is in its shards, with their checksums.
public struct ShardManifest: Sendable, Equatable {
    /// One input as it was named, with what came of it.
    public struct Source: Sendable, Equatable {
        /// A file, a folder, or `-` for standard input.
        public var path: String
        /// Files read.
        public var files = 0
        /// Documents of at least one token.
        public var documents = 0
        /// Bytes of text, after unpacking.
        public var bytes = 0

        /// An input of which nothing has been read.
        public init(path: String) { self.path = path }
    }

    /// One shard.
    public struct Shard: Sendable, Equatable {
        /// Name in the corpus' folder.
        public var file: String
        /// Which part its documents belong to.
        public var part: CorpusPart
        /// Documents, whole ones.
        public var documents: Int
        /// Tokens, ends of documents included.
        public var tokens: Int
        /// Size and checksum of the file.
        public var digest: FileDigest
    }

    /// Name of the manifest in its folder.
    public static let fileName = "manifest.json"
    /// Name of the copy of a tokenizer's file in the folder.
    public static let tokenizerName = "tokenizer.json"

    /// What the ids stand for.
    public var vocabulary: VocabularyIdentity
    /// The share of documents that was to be held out.
    public var heldOut: Double
    /// Where the text came from.
    public var sources: [Source]
    /// The shards; those of a part follow each other as they are read.
    public var shards: [Shard]

    /// Tokens of a part.
    public func tokens(_ part: CorpusPart) -> Int { shards.reduce(0) { $0 + ($1.part == part ? $1.tokens : 0) } }
    /// Documents of a part.
    public func documents(_ part: CorpusPart) -> Int { shards.reduce(0) { $0 + ($1.part == part ? $1.documents : 0) } }

    /// Tells corpora apart: XXH64 over the vocabulary and the checksums of the shards, in order.
    public var checksum: UInt64 {
        let text = shards.reduce(XXH64.hex(vocabulary.digest)) {
            "\($0) \($1.part.rawValue) \($1.tokens) \(XXH64.hex($1.digest.checksum))"
        }
        return Array(text.utf8).withUnsafeBytes { XXH64.checksum($0) }
    }
}
