import ApusTensor

/// The file of a tokenizer.
enum TokenizerFile {
    /// Larger than any tokenizer; protects against naming a model's weights by mistake.
    static let mostBytes = 1 << 29

    /// Lends the content.
    static func read<Result>(
        _ path: String, _ body: (UnsafeRawBufferPointer) throws(TokenizerError) -> Result
    ) throws(TokenizerError) -> Result {
        let file: FileContents
        do throws(FileError) {
            file = try FileContents(path: path, atMost: mostBytes)
        } catch {
            throw if case .notFound = error { .notFound(path: path) } else { .file(error) }
        }
        return try file.withUnsafeBytes(body)
    }

    /// Writes a file that appears whole or not at all.
    static func write(_ bytes: [UInt8], to path: String) throws(TokenizerError) {
        do throws(FileError) {
            var file = try AtomicFile(path: path)
            try file.write(bytes)
            _ = try file.publish()
        } catch {
            throw .file(error)
        }
    }
}
