import ApusData
import ApusModels
import ApusTensor

/// What a recipe's `data` leads to: text in memory, prepared corpora, a mixture of both, or images.
struct TrainingData {
    /// What is trained on.
    let stream: SequenceStream
    /// What is evaluated; `nil` if nothing is.
    let heldOut: SequenceStream?
    /// Tokens that are trained on.
    let tokens: Int
    /// Tells a resumed run whether the data has changed.
    let checksum: UInt64
    /// The tokenizer's files, by name, which belong to every checkpoint; none if tokens are bytes.
    ///
    /// Kept, so that a checkpoint has the tokenizer that the run began with whatever becomes of the folder.
    let companions: [String: FileContents]

    /// Opens the sources of a recipe. Prepared data is compared with its checksums unless the recipe says no.
    ///
    /// - Throws: ``DataError``; ``FileError`` for a file that cannot be opened.
    init(_ recipe: Recipe) throws {
        let data = recipe.data
        if let patches = recipe.model.patches {
            self = try TrainingData(images: recipe, patches)
            return
        }
        let opened = try data.sources.map { try OpenedSource($0, data) }
        for source in opened { try source.check(against: opened[0], model: recipe.model) }
        let wholeRun = { (parts: [SequenceStream.Source], seed: UInt64?, part: String) throws(DataError) in
            try SequenceStream(
                parts, sequenceLength: data.sequenceLength, shuffleSeed: seed, mixtureSeed: recipe.seed,
                temperature: data.temperature, masksDocuments: data.documentMask, part: part)
        }
        stream = try wholeRun(opened.map(\.training), data.shuffle ? recipe.seed : nil, "training")
        tokens = opened.reduce(0) { $0 + $1.training.tokens.count }
        if recipe.training.evaluateEvery > 0 {
            // A source of a mixture may have too little to hold out; one has to have enough.
            let enough = opened.map(\.heldOut).filter { $0.tokens.count > data.sequenceLength }
            if enough.isEmpty, let prepared = opened.first(where: \.isPrepared), prepared.heldOut.tokens.count == 0 {
                throw DataError.noHeldOut(path: prepared.training.path)
            }
            heldOut = try wholeRun(enough.isEmpty ? [opened[0].heldOut] : enough, nil, "held-out")
        } else {
            heldOut = nil
        }
        checksum = opened.count == 1 ? opened[0].checksum : OpenedSource.checksum(of: opened)
        companions = opened.lazy.map(\.companions).first { !$0.isEmpty } ?? [:]
    }
}

extension TrainingData {
    /// Opens the images of a recipe.
    ///
    /// - Throws: ``DataError/badImages(path:reason:)`` for a file that is none, or whose images are not the model's;
    ///   ``FileError``.
    private init(images recipe: Recipe, _ patches: PatchConfiguration) throws {
        let data = recipe.data
        let images = try ImageSet(path: data.path)
        try images.check(
            height: patches.height, width: patches.width, channels: patches.channels, classes: recipe.model.vocabulary)
        let parts = images.split(heldOut: data.heldOut)
        stream = try SequenceStream(
            parts.training, patch: patches.size, shuffleSeed: data.shuffle ? recipe.seed : nil, part: "training")
        heldOut =
            recipe.training.evaluateEvery > 0
            ? try SequenceStream(parts.heldOut, patch: patches.size, shuffleSeed: nil, part: "held-out") : nil
        tokens = parts.training.count * data.sequenceLength
        checksum = images.checksum
        companions = [:]
    }
}

/// One source, opened.
private struct OpenedSource {
    let training: SequenceStream.Source
    let heldOut: SequenceStream.Source
    let vocabulary: VocabularyIdentity
    let checksum: UInt64
    let isPrepared: Bool
    let companions: [String: FileContents]

    init(_ source: DataConfiguration.Source, _ data: DataConfiguration) throws {
        let path = source.path
        isPrepared = ShardSet.isPrepared(path)
        let parts: (training: any TokenSource, heldOut: any TokenSource)
        if isPrepared {
            let corpus = try ShardSet(path: path)
            if data.verify { try corpus.verify() }
            parts = (corpus.training, corpus.heldOut)
            vocabulary = corpus.manifest.vocabulary
            checksum = corpus.manifest.checksum
            companions = corpus.tokenizerFile == nil ? [:] : try CompanionFiles.read(from: corpus.path)
        } else {
            let corpus = try TextCorpus(path: path, vocabulary: ByteVocabulary())
            let (training, rest) = corpus.split(heldOut: data.heldOut)
            parts = (
                MemoryTokens(training, documentEnds: corpus.documentEnds),
                MemoryTokens(rest, documentEnds: corpus.documentEnds)
            )
            vocabulary = NamedVocabulary.bytes.identity
            checksum = corpus.checksum
            companions = [:]
        }
        training = SequenceStream.Source(path: path, tokens: parts.training, weight: source.weight)
        heldOut = SequenceStream.Source(path: path, tokens: parts.heldOut, weight: source.weight)
    }

    /// - Throws: ``DataError/otherVocabulary(path:found:remedy:)`` unless the ids mean what those of `first` do, and the
    ///   model has all of them.
    func check(against first: OpenedSource, model: ModelConfiguration) throws(DataError) {
        let found = "'\(vocabulary.name)', \(vocabulary.size) ids"
        guard vocabulary.digest == first.vocabulary.digest else {
            throw .otherVocabulary(
                path: training.path, found: found,
                remedy: "prepare all of data.sources with one tokenizer, such as that of '\(first.training.path)'")
        }
        guard vocabulary.size <= model.vocabulary else {
            throw .otherVocabulary(
                path: training.path, found: found,
                remedy: "set model.vocabulary, which is \(model.vocabulary), to at least \(vocabulary.size)")
        }
    }

    static func checksum(of sources: [OpenedSource]) -> UInt64 {
        let text = sources.map { XXH64.hex($0.checksum) }.joined(separator: " ")
        return Array(text.utf8).withUnsafeBytes { XXH64.checksum($0) }
    }
}
