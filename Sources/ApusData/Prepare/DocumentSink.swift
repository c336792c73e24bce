/// Where encoded documents go: to the shards of their part, in order.
struct DocumentSink {
    private let preparation: Preparation
    private let files: [InputFile]
    private let writers: [CorpusPart: ShardWriter]
    private var sources: [ShardManifest.Source]
    private var part = CorpusPart.training
    /// Tokens of the document that is not ended yet.
    private var openTokens = 0
    private(set) var progress = Preparation.Progress()

    init(_ preparation: Preparation, files: [InputFile], folder: String) {
        self.preparation = preparation
        self.files = files
        sources = preparation.inputs.map { ShardManifest.Source(path: $0) }
        writers = Dictionary(
            uniqueKeysWithValues: CorpusPart.allCases.map { part in
                let writer = ShardWriter(
                    folder: folder, part: part, vocabulary: preparation.vocabulary.identity,
                    tokensPerShard: preparation.tokensPerShard)
                return (part, writer)
            })
    }

    /// Notes files of which reading has begun.
    mutating func count(opened: [Int]) {
        for file in opened { sources[files[file].input].files += 1 }
    }

    /// Writes pieces that follow those before.
    ///
    /// - Throws: what writing files throws.
    mutating func append(_ encoded: [EncodedPieces]) throws {
        for group in encoded {
            var begin = 0
            for piece in group.pieces {
                if let part = piece.part { self.part = part }
                let writer = writers[part]
                try writer?.append(group.tokens[begin..<piece.end])
                openTokens += piece.end - begin
                progress.tokens += piece.end - begin
                progress.bytes += piece.bytes
                sources[files[piece.file].input].bytes += piece.bytes
                begin = piece.end
                guard piece.endsDocument, openTokens > 0 else { continue }
                try writer?.endDocument()
                openTokens = 0
                progress.documents += 1
                sources[files[piece.file].input].documents += 1
            }
        }
    }

    /// Ends the shards.
    ///
    /// - Throws: ``DataError/empty(path:)`` if there was no text; what writing files throws.
    mutating func finish() throws -> ShardManifest {
        guard progress.documents > 0 else {
            let names = preparation.inputs.map { $0 == InputFile.standardInputName ? InputFile.standardInput : $0 }
            throw DataError.empty(path: names.joined(separator: " "))
        }
        for writer in writers.values { try writer.finish() }
        return ShardManifest(
            vocabulary: preparation.vocabulary.identity, heldOut: preparation.heldOut, sources: sources,
            shards: CorpusPart.allCases.flatMap { writers[$0]?.shards ?? [] })
    }
}
