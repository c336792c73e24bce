import ApusTensor
import Glibc

/// A prepared corpus: a folder of token shards with a manifest, opened for reading.
///
/// Opening checks sizes and headers against the manifest and reads no tokens. What is read later is bounded memory,
/// whatever the corpus' size.
public struct ShardSet: Sendable {
    /// The folder.
    public let path: String
    /// What is in it.
    public let manifest: ShardManifest
    /// What is trained on.
    public let training: ShardPart
    /// What is kept for evaluation; may have no tokens.
    public let heldOut: ShardPart

    /// Opens a folder that `apus data prepare` wrote.
    ///
    /// - Throws: ``DataError`` if a shard is not the one that the manifest describes; what opening files throws.
    public init(path: String) throws {
        let path = withoutTrailingSlashes(path)
        let manifest = try ShardManifest(folder: path)
        ShardSet.allowOpenFiles(manifest.shards.count)
        var parts: [CorpusPart: [ShardFile]] = [:]
        for shard in manifest.shards {
            let file = try ShardSet.open(shard, in: path, manifest: manifest)
            parts[shard.part, default: []].append(file)
        }
        self.path = path
        self.manifest = manifest
        training = ShardPart(parts[.training] ?? [])
        heldOut = ShardPart(parts[.heldOut] ?? [])
    }

    /// Whether a folder has a manifest of shards.
    public static func isPrepared(_ path: String) -> Bool {
        access("\(withoutTrailingSlashes(path))/\(ShardManifest.fileName)", F_OK) == 0
    }

    /// A part.
    public func part(_ part: CorpusPart) -> ShardPart {
        switch part {
        case .training: training
        case .heldOut: heldOut
        }
    }

    /// The copy of the tokenizer's file; `nil` if the tokens are bytes.
    public var tokenizerFile: String? { NamedVocabulary.file(inFolder: path) }

    /// Reads every shard through, and the tokenizer's file, and compares checksums.
    ///
    /// - Throws: ``DataError/fileChanged(path:what:)``; what reading a file throws.
    public func verify() throws {
        for shard in manifest.shards {
            let file = "\(path)/\(shard.file)"
            try ShardSet.compare(shard.digest, with: FileDigest(ofFile: file), of: file)
        }
        if let tokenizerFile {
            let found = try FileDigest(ofFile: tokenizerFile)
            let expected = FileDigest(count: found.count, checksum: manifest.vocabulary.digest)
            try ShardSet.compare(expected, with: found, of: tokenizerFile)
        }
    }

    /// Raises the process' own limit of open files as far as it may, where it is short of room for `count` more.
    private static func allowOpenFiles(_ count: Int) {
        var limit = rlimit()
        let kind = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        let wanted = rlim_t(count) + 256
        guard getrlimit(kind, &limit) == 0, limit.rlim_cur < wanted else { return }
        limit.rlim_cur = min(wanted, limit.rlim_max)
        _ = setrlimit(kind, &limit)
    }

    private static func compare(_ expected: FileDigest, with found: FileDigest, of path: String) throws(DataError) {
        guard found.count == expected.count else {
            throw .fileChanged(path: path, what: "has \(found.count) bytes, its manifest says \(expected.count)")
        }
        guard found.checksum == expected.checksum else {
            let (sum, wanted) = (XXH64.hex(found.checksum), XXH64.hex(expected.checksum))
            throw .fileChanged(path: path, what: "has checksum \(sum), its manifest says \(wanted)")
        }
    }

    private static func open(
        _ shard: ShardManifest.Shard, in folder: String, manifest: ShardManifest
    ) throws -> ShardFile {
        let path = "\(folder)/\(shard.file)"
        var status = stat()
        // The size first: of a file that was cut short it says more than a header that cannot be read.
        if stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG, Int(status.st_size) != shard.digest.count {
            throw DataError.fileChanged(
                path: path, what: "has \(status.st_size) bytes, its manifest says \(shard.digest.count)")
        }
        let file = try ShardFile(path: path)
        guard file.header.tokens == shard.tokens, file.header.documents == shard.documents,
            file.header.vocabularySize == manifest.vocabulary.size,
            file.header.endOfDocument == manifest.vocabulary.endOfDocument
        else {
            throw DataError.fileChanged(path: path, what: "has other counts or another vocabulary than its manifest")
        }
        return file
    }
}
