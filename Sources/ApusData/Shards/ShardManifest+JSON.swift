import ApusTensor

extension ShardManifest {
    private static let version = 1
    /// Largest file read, in bytes: a hundred thousand shards, and little enough to refuse at once what is none.
    private static let largestSize = 16 << 20

    /// The text of `manifest.json`.
    var json: String {
        let end = vocabulary.endOfDocument.map { ", \"end_of_document\": \($0)" } ?? ""
        let sources = sources.map {
            "    {\"path\": \(jsonString($0.path)), \"files\": \($0.files), \"documents\": \($0.documents), "
                + "\"bytes\": \($0.bytes)}"
        }
        let shards = shards.map {
            "    {\"file\": \(jsonString($0.file)), \"part\": \"\($0.part.rawValue)\", \"documents\": \($0.documents), "
                + "\"tokens\": \($0.tokens), \"bytes\": \($0.digest.count), "
                + "\"checksum\": \"\(XXH64.hex($0.digest.checksum))\"}"
        }
        return """
            {
              "version": \(Self.version),
              "vocabulary": {
                "name": \(jsonString(vocabulary.name)), "size": \(vocabulary.size)\(end),
                "digest": "\(XXH64.hex(vocabulary.digest))"
              },
              "held_out": "\(heldOut)",
              "sources": [
            \(sources.joined(separator: ",\n"))
              ],
              "shards": [
            \(shards.joined(separator: ",\n"))
              ]
            }

            """
    }

    /// Reads the manifest of a folder.
    ///
    /// - Throws: ``DataError/malformed(path:reason:)``; what reading a file throws.
    public init(folder: String) throws {
        let path = "\(withoutTrailingSlashes(folder))/\(Self.fileName)"
        let file = try FileContents(path: path, atMost: Self.largestSize)
        self = try file.withUnsafeBytes { text in try ShardManifest(text, path: path) }
    }

    /// Reads the text of a manifest; `path` is what messages call it.
    ///
    /// - Throws: ``DataError/malformed(path:reason:)``
    init(_ text: UnsafeRawBufferPointer, path: String) throws(DataError) {
        do throws(JSONScanner.Fault) {
            var scanner = JSONScanner(text)
            self = try Self.parse(&scanner)
        } catch {
            throw .malformed(path: path, reason: "byte \(error.offset): \(error.reason)")
        }
    }

    private static func parse(_ scanner: inout JSONScanner) throws(JSONScanner.Fault) -> ShardManifest {
        var hasVersion = false
        var vocabulary: VocabularyIdentity?
        var heldOut: Double?
        var sources: [Source]?
        var shards: [Shard]?
        var object = try scanner.beginObject()
        while let key = try scanner.nextKey(in: &object) {
            switch key {
            case "version" where !hasVersion:
                let found = try scanner.wholeNumber("a version")
                if found != version {
                    throw scanner.fault("version \(found) is unknown, this program reads \(version)")
                }
                hasVersion = true
            case "vocabulary" where vocabulary == nil: vocabulary = try parseVocabulary(&scanner)
            case "held_out" where heldOut == nil:
                guard let value = Double(try scanner.string()), value >= 0, value < 1 else {
                    throw scanner.fault("'held_out' is no number of at least 0 and below 1, in quotes")
                }
                heldOut = value
            case "sources" where sources == nil: sources = try list(&scanner, parseSource)
            case "shards" where shards == nil: shards = try list(&scanner, parseShard)
            default: throw scanner.fault("unknown or repeated key \(quoted(key))")
            }
        }
        try scanner.end()
        guard hasVersion, let vocabulary, let heldOut, let sources, let shards else {
            throw scanner.fault("needs 'version', 'vocabulary', 'held_out', 'sources' and 'shards'")
        }
        guard Set(shards.map(\.file)).count == shards.count else { throw scanner.fault("a shard is there twice") }
        // Sums of counts that pass stay far below the largest number.
        guard shards.allSatisfy({ $0.tokens < 1 << 48 && $0.documents <= $0.tokens }) else {
            throw scanner.fault("a shard counts more tokens than can be, or more documents than tokens")
        }
        return ShardManifest(vocabulary: vocabulary, heldOut: heldOut, sources: sources, shards: shards)
    }

    private static func list<Element>(
        _ scanner: inout JSONScanner, _ parse: (inout JSONScanner) throws(JSONScanner.Fault) -> Element
    ) throws(JSONScanner.Fault) -> [Element] {
        var elements: [Element] = []
        var array = try scanner.beginArray()
        while try scanner.nextElement(in: &array) { elements.append(try parse(&scanner)) }
        return elements
    }

    private static func parseVocabulary(
        _ scanner: inout JSONScanner
    ) throws(JSONScanner.Fault) -> VocabularyIdentity {
        var (name, size, digest, end): (String?, Int?, UInt64?, Int?)
        var object = try scanner.beginObject()
        while let key = try scanner.nextKey(in: &object) {
            switch key {
            case "name" where name == nil: name = try scanner.string()
            case "size" where size == nil: size = try scanner.wholeNumber("a size")
            case "end_of_document" where end == nil: end = try scanner.wholeNumber("an id")
            case "digest" where digest == nil: digest = try checksum(&scanner)
            default: throw scanner.fault("unknown or repeated key \(quoted(key))")
            }
        }
        guard let name, let size, let digest else {
            throw scanner.fault("a vocabulary needs 'name', 'size' and 'digest'")
        }
        guard size > 0, size <= Int(Int32.max), end ?? 0 < size else {
            throw scanner.fault("a vocabulary of \(size) with the end of a document at \(end ?? 0) cannot be")
        }
        return VocabularyIdentity(name: name, size: size, endOfDocument: end.map { Int32($0) }, digest: digest)
    }

    private static func parseSource(_ scanner: inout JSONScanner) throws(JSONScanner.Fault) -> Source {
        var path: String?
        var counts: [String: Int] = [:]
        var object = try scanner.beginObject()
        while let key = try scanner.nextKey(in: &object) {
            switch key {
            case "path" where path == nil: path = try scanner.string()
            case "files", "documents", "bytes":
                if counts.updateValue(try scanner.wholeNumber("a count"), forKey: key) != nil { fallthrough }
            default: throw scanner.fault("unknown or repeated key \(quoted(key))")
            }
        }
        guard let path, let files = counts["files"], let documents = counts["documents"], let bytes = counts["bytes"]
        else { throw scanner.fault("a source needs 'path', 'files', 'documents' and 'bytes'") }
        var source = Source(path: path)
        (source.files, source.documents, source.bytes) = (files, documents, bytes)
        return source
    }

    private static func parseShard(_ scanner: inout JSONScanner) throws(JSONScanner.Fault) -> Shard {
        var (file, part, sum): (String?, CorpusPart?, UInt64?)
        var counts: [String: Int] = [:]
        var object = try scanner.beginObject()
        while let key = try scanner.nextKey(in: &object) {
            switch key {
            case "file" where file == nil:
                let name = try scanner.string()
                guard isPlainFileName(name), name != fileName else {
                    throw scanner.fault("\(quoted(name)) is not the name of a shard in the same folder")
                }
                file = name
            case "part" where part == nil:
                let name = try scanner.string()
                part = CorpusPart(rawValue: name)
                if part == nil { throw scanner.fault("\(quoted(name)) is neither training nor held-out") }
            case "checksum" where sum == nil: sum = try checksum(&scanner)
            case "documents", "tokens", "bytes":
                if counts.updateValue(try scanner.wholeNumber("a count"), forKey: key) != nil { fallthrough }
            default: throw scanner.fault("unknown or repeated key \(quoted(key))")
            }
        }
        guard let file, let part, let sum, let documents = counts["documents"], let tokens = counts["tokens"],
            let bytes = counts["bytes"]
        else { throw scanner.fault("a shard needs 'file', 'part', 'documents', 'tokens', 'bytes' and 'checksum'") }
        return Shard(
            file: file, part: part, documents: documents, tokens: tokens,
            digest: FileDigest(count: bytes, checksum: sum))
    }

    private static func checksum(_ scanner: inout JSONScanner) throws(JSONScanner.Fault) -> UInt64 {
        let text = try scanner.string()
        // One spelling per number: a damaged digit must not read as the same checksum.
        guard let value = UInt64(text, radix: 16), XXH64.hex(value) == text else {
            throw scanner.fault("a checksum is not 16 lower-case hexadecimal digits")
        }
        return value
    }
}
