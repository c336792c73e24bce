import ApusData
import ApusTensor

/// What `apus data` says of a prepared corpus.
struct CorpusSummary {
    private let path: String
    private let manifest: ShardManifest
    private let shards: [ShardManifest.Shard]

    /// A summary of all shards, or of one.
    init(_ path: String, _ manifest: ShardManifest, shard: ShardManifest.Shard? = nil) {
        self.path = path
        self.manifest = manifest
        shards = shard.map { [$0] } ?? manifest.shards
    }

    private func sum(_ part: CorpusPart, _ value: (ShardManifest.Shard) -> Int) -> Int {
        shards.reduce(0) { $0 + ($1.part == part ? value($1) : 0) }
    }

    /// Aligned lines for people.
    var text: String {
        let vocabulary = manifest.vocabulary
        var rows = [
            ["folder", path],
            ["vocabulary", "\(vocabulary.name), \(grouped(vocabulary.size)) ids"],
            [
                "size",
                "\(formatBytes(shards.reduce(0) { $0 + $1.digest.count })) in \(plural(shards.count, "shard"))",
            ],
        ]
        for part in CorpusPart.allCases where sum(part, \.documents) > 0 {
            rows.append([
                part.rawValue,
                "\(plural(sum(part, \.tokens), "token")), \(plural(sum(part, \.documents), "document"))",
            ])
        }
        for source in manifest.sources.prefix(10) {
            rows.append([
                "source",
                "\(source.path): \(plural(source.files, "file")), \(plural(source.documents, "document")), "
                    + formatBytes(source.bytes),
            ])
        }
        if manifest.sources.count > 10 { rows.append(["source", "and \(manifest.sources.count - 10) more"]) }
        return table(rows, leftColumns: 2)
    }

    /// For `--json`.
    func object(more: [(String, JSONText)]) -> JSONText {
        let vocabulary = manifest.vocabulary
        let parts = CorpusPart.allCases.map { part in
            (
                part.rawValue,
                JSONText.object([
                    ("tokens", .integer(sum(part, \.tokens))), ("documents", .integer(sum(part, \.documents))),
                ])
            )
        }
        let sources = manifest.sources.map { source in
            JSONText.object([
                ("path", .string(source.path)), ("files", .integer(source.files)),
                ("documents", .integer(source.documents)), ("bytes", .integer(source.bytes)),
            ])
        }
        let files = shards.map { shard in
            JSONText.object([
                ("file", .string(shard.file)), ("part", .string(shard.part.rawValue)),
                ("documents", .integer(shard.documents)), ("tokens", .integer(shard.tokens)),
                ("bytes", .integer(shard.digest.count)), ("checksum", .string(XXH64.hex(shard.digest.checksum))),
            ])
        }
        let fields: [(String, JSONText)] = [
            ("folder", .string(path)), ("vocabulary", .string(vocabulary.name)),
            ("vocabulary_size", .integer(vocabulary.size)),
            ("end_of_document", .optional(vocabulary.endOfDocument) { .integer(Int($0)) }),
            ("held_out", .number(manifest.heldOut)),
        ]
        return .object(fields + parts + [("sources", .array(sources)), ("shards", .array(files))] + more)
    }
}
