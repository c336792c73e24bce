import ApusTensor

/// The text of `checksums.json`: `{"version": 1, "algorithm": "xxh64", "files": {name: {"bytes", "checksum"}}}`.
extension CheckpointManifest {
    private static let algorithm = "xxh64"

    var json: String {
        let lines = files.sorted { $0.key < $1.key }.map { name, digest in
            "    \(jsonString(name)): "
                + "{\"bytes\": \(digest.count), \"checksum\": \"\(XXH64.hex(digest.checksum))\"}"
        }
        return """
            {
              "version": 1,
              "algorithm": "\(Self.algorithm)",
              "files": {
            \(lines.joined(separator: ",\n"))
              }
            }

            """
    }

    /// - Parameters:
    ///   - text: the whole file.
    ///   - path: its name, for messages.
    init(_ text: UnsafeRawBufferPointer, path: String) throws(FileError) {
        do throws(JSONScanner.Fault) {
            var scanner = JSONScanner(text)
            files = try Self.parse(&scanner)
        } catch {
            throw .malformed(path: path, offset: error.offset, reason: "checksum manifest: \(error.reason)")
        }
        for name in files.keys where !isPlainFileName(name) { throw .unsafeFileName(path: path, name: name) }
    }

    private static func parse(_ scanner: inout JSONScanner) throws(JSONScanner.Fault) -> [String: FileDigest] {
        var hasVersion = false
        var hasAlgorithm = false
        var files: [String: FileDigest]?
        var object = try scanner.beginObject()
        while let key = try scanner.nextKey(in: &object) {
            switch key {
            case "version" where !hasVersion:
                let version = try scanner.wholeNumber("a version")
                if version != 1 { throw scanner.fault("version \(version) is unknown, this program reads 1") }
                hasVersion = true
            case "algorithm" where !hasAlgorithm:
                let name = try scanner.string()
                if name != algorithm { throw scanner.fault("algorithm \(quoted(name)) is unknown, only xxh64 is") }
                hasAlgorithm = true
            case "files" where files == nil: files = try parseFiles(&scanner)
            default: throw scanner.fault("unknown or repeated key \(quoted(key))")
            }
        }
        try scanner.end()
        guard hasVersion, hasAlgorithm, let files else {
            throw scanner.fault("needs 'version', 'algorithm' and 'files'")
        }
        return files
    }

    private static func parseFiles(_ scanner: inout JSONScanner) throws(JSONScanner.Fault) -> [String: FileDigest] {
        var files: [String: FileDigest] = [:]
        var object = try scanner.beginObject()
        while let name = try scanner.nextKey(in: &object) {
            if files.updateValue(try parseDigest(&scanner), forKey: name) != nil {
                throw scanner.fault("the file \(quoted(name)) is there twice")
            }
        }
        return files
    }

    private static func parseDigest(_ scanner: inout JSONScanner) throws(JSONScanner.Fault) -> FileDigest {
        var count: Int?
        var checksum: UInt64?
        var object = try scanner.beginObject()
        while let key = try scanner.nextKey(in: &object) {
            switch key {
            case "bytes" where count == nil: count = try scanner.wholeNumber("a byte count")
            case "checksum" where checksum == nil:
                let text = try scanner.string()
                // One spelling per number: a damaged digit must not read as the same checksum.
                guard let value = UInt64(text, radix: 16), XXH64.hex(value) == text else {
                    throw scanner.fault("a checksum is not 16 lower-case hexadecimal digits")
                }
                checksum = value
            default: throw scanner.fault("unknown or repeated key \(quoted(key))")
            }
        }
        guard let count, let checksum else { throw scanner.fault("a file needs 'bytes' and 'checksum'") }
        return FileDigest(count: count, checksum: checksum)
    }
}
