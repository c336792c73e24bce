import ApusData
import ApusTensor
import ArgumentParser

/// `apus data inspect`: what is in prepared data.
struct DataInspect: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect",
        abstract: "Show what is in prepared data: counts, sources, shards, and samples as text.",
        discussion: """
            Sizes and headers are checked in any case; --verify reads every shard and compares its checksum.

            Example:
              apus data inspect prepared/mix --samples 3 --verify
              apus data inspect prepared/mix/training-00000.tokens --samples 1
            """)

    @Argument(help: "A folder that 'apus data prepare' wrote, or one of its shards.")
    var path: String

    @Option(help: "Documents to show, spread evenly over the training part (or the shard).")
    var samples = 0

    @Option(help: "Most tokens of a sample.")
    var sampleTokens = 128

    @Flag(help: "Read every shard and compare its checksum.")
    var verify = false

    @Flag(help: "Print one JSON object.")
    var json = false

    func validate() throws {
        if samples < 0 { throw ValidationError("--samples must not be negative") }
        if sampleTokens < 1 { throw ValidationError("--sample-tokens must be at least 1") }
    }

    func run() throws {
        let (folder, shard) = try place()
        let corpus = try ShardSet(path: folder)
        if verify { try corpus.verify() }
        let summary = CorpusSummary(folder, corpus.manifest, shard: shard)
        let texts = samples > 0 ? try sampleTexts(corpus, shard) : []
        if json {
            print(summary.object(more: [("verified", .bool(verify)), ("samples", .array(texts.map(\.object)))]))
            return
        }
        print(summary.text)
        if verify { print("checksums: all files are as they were written") }
        for text in texts { print("\n\(text.heading)\n\(text.text)") }
    }

    /// The folder, and the shard of it that is meant; `nil` for all.
    private func place() throws -> (folder: String, shard: ShardManifest.Shard?) {
        if ShardSet.isPrepared(path) { return (path, nil) }
        let parts = path.split(separator: "/", omittingEmptySubsequences: false)
        let folder = parts.count == 1 ? "." : parts.dropLast().joined(separator: "/")
        guard let name = parts.last, ShardSet.isPrepared(folder) else {
            throw CommandError(
                "'\(path)' holds no prepared data: give a folder that 'apus data prepare' wrote, or one of its shards")
        }
        let shards = try ShardManifest(folder: folder).shards
        guard let shard = shards.first(where: { $0.file == name }) else {
            throw CommandError("'\(path)' is none of the \(shards.count) shards of '\(folder)'")
        }
        return (folder, shard)
    }

    private func sampleTexts(_ corpus: ShardSet, _ shard: ShardManifest.Shard?) throws -> [CorpusSample] {
        let vocabulary = try corpus.vocabulary().vocabulary
        let part = shard?.part ?? (corpus.training.count > 0 ? .training : .heldOut)
        let tokens = corpus.part(part)
        let before = corpus.manifest.shards.prefix { shard != nil && $0.file != shard?.file }.filter { $0.part == part }
        let first = before.reduce(0) { $0 + $1.documents }
        let documents = shard?.documents ?? tokens.documentCount
        let count = min(samples, documents)
        return try (0..<count).map { index in
            let whole = try tokens.document(first + documents / count * index)
            let shown = whole.prefix(sampleTokens)
            let ids = try tokens.tokens(shown)
            return CorpusSample(
                part: part, start: whole.lowerBound, ids: ids, text: vocabulary.text(of: ids), isWhole: shown == whole)
        }
    }
}

/// A document, or its beginning.
private struct CorpusSample {
    let part: CorpusPart
    let start: Int
    let ids: [Int32]
    let text: String
    let isWhole: Bool

    var heading: String {
        "--- \(part.rawValue), token \(start), \(ids.count) tokens\(isWhole ? "" : " of a longer document")"
    }

    var object: JSONText {
        .object([
            ("part", .string(part.rawValue)), ("start", .integer(start)),
            ("ids", .array(ids.map { .integer(Int($0)) })), ("text", .string(text)), ("whole", .bool(isWhole)),
        ])
    }
}
