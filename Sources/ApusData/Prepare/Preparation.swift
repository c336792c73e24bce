public import ApusTensor
import Glibc

/// Turns text into token shards: `apus data prepare`.
///
/// Files are read, tokenised and written at the same time: while one batch of a few megabytes is tokenised by all
/// threads, the next is read and the last one written. Documents keep their order, so the shards are the same for any
/// number of threads.
public struct Preparation {
    /// Files, folders, or `-` for standard input.
    public var inputs: [String]
    /// How documents lie in the files.
    public var format: InputFormat
    /// What gives tokens their ids.
    public var vocabulary: NamedVocabulary
    /// The share of documents that is held out, of at least 0 and below 1.
    public var heldOut: Double
    /// A shard ends with the document that brings it to this many tokens.
    public var tokensPerShard: Int

    /// A preparation of `inputs`.
    public init(
        inputs: [String], format: InputFormat = .auto, vocabulary: NamedVocabulary, heldOut: Double = 0,
        tokensPerShard: Int = 1 << 27
    ) {
        precondition(heldOut >= 0 && heldOut < 1 && tokensPerShard > 0)
        self.inputs = inputs
        self.format = format
        self.vocabulary = vocabulary
        self.heldOut = heldOut
        self.tokensPerShard = tokensPerShard
    }

    /// How far a preparation has come.
    public struct Progress: Sendable {
        /// Bytes of text.
        public var bytes = 0
        /// Documents.
        public var documents = 0
        /// Tokens, ends of documents included.
        public var tokens = 0
    }

    /// Writes the folder, which appears whole or not at all.
    ///
    /// - Throws: ``DataError`` for input that is no text; what writing files throws. Nothing is left behind then.
    public func write(
        to folder: String, pool: ThreadPool, progress: (Progress) -> Void = { _ in }
    ) throws -> ShardManifest {
        let files = try InputFile.list(inputs, format: format)
        if try FolderTree.kind(withoutTrailingSlashes(folder)) != nil { throw DataError.outputExists(path: folder) }
        let directory = try AtomicDirectory(path: folder)
        var sink = DocumentSink(self, files: files, folder: directory.stagingPath)
        try run(files, into: &sink, pool, progress)
        let manifest = try sink.finish()
        if let file = vocabulary.file, let name = vocabulary.fileName {
            try copy(file, to: "\(directory.stagingPath)/\(name)")
        }
        try AtomicFile.write(manifest.json, to: "\(directory.stagingPath)/\(ShardManifest.fileName)")
        try directory.publish()
        return manifest
    }

    /// Least text that is worth a thread's while, in bytes.
    private static let grain = 32 << 10

    private func run(
        _ files: [InputFile], into sink: inout DocumentSink, _ pool: ThreadPool, _ progress: (Progress) -> Void
    ) throws {
        let reader = DocumentReader(files)
        let encoder = DocumentEncoder(
            files: files, vocabulary: vocabulary.vocabulary, split: HeldOutSplit(fraction: heldOut))
        var current = try reader.batch()
        var encoded: [EncodedPieces] = []
        while current != nil || !encoded.isEmpty {
            let batch = current ?? InputBatch()
            sink.count(opened: batch.opened)
            let groups = Preparation.groups(batch.pieces)
            var results = [EncodedPieces](repeating: EncodedPieces(), count: groups.count)
            var (next, reading, writing): (InputBatch?, (any Error)?, (any Error)?)
            let hasMore = current != nil
            results.withUnsafeMutableBufferPointer { results in
                pool.run(parts: groups.count + 2) { part, _ in
                    switch part {
                    case 0: if hasMore { do { next = try reader.batch() } catch { reading = error } }
                    case 1: do { try sink.append(encoded) } catch { writing = error }
                    default: results[part - 2] = encoder.encode(batch.pieces[groups[part - 2]], of: batch.bytes)
                    }
                }
            }
            // In the order of the text, so that the same input always gives the same message.
            if let error = writing ?? results.lazy.compactMap(\.failure).first ?? reading { throw error }
            progress(sink.progress)
            (current, encoded) = (next, results)
        }
    }

    /// Consecutive pieces with enough text for one part of the work.
    private static func groups(_ pieces: [InputBatch.Piece]) -> [Range<Int>] {
        var groups: [Range<Int>] = []
        var begin = 0
        for (index, piece) in pieces.enumerated()
        where index + 1 == pieces.count || piece.range.upperBound - pieces[begin].range.lowerBound >= grain {
            groups.append(begin..<index + 1)
            begin = index + 1
        }
        return groups
    }

    private func copy(_ file: String, to target: String) throws {
        var copy = try AtomicFile(path: target)
        try copy.write(FileContents(path: file).bytes)
        try copy.publish()
    }
}
