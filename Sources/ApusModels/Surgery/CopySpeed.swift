import ApusTensor
import Glibc

/// How fast the storage takes a plain copy of a model's bytes: what writing a new model is held to.
enum CopySpeed {
    /// Enough for the storage's own speed to show, little beside a model worth measuring.
    private static let mostBytes = 128 << 20
    private static let pieceSize = 8 << 20

    /// Copies the beginning of a folder's first file with weights into a file in `staging`, waits until it is on storage,
    /// and removes it.
    ///
    /// - Returns: bytes a second; `nil` for an empty file.
    /// - Throws: ``FileError``.
    static func measure(of folder: String, in staging: String) throws(FileError) -> Double? {
        guard let source = try ShardedSafetensors(folder: folder).shards.first else { return nil }
        let map = try MappedFile(path: source.path)
        let count = min(map.count, mostBytes)
        let path = "\(staging)/copy-speed"
        let clock = ContinuousClock()
        let begin = clock.now
        let file = try FileDescriptor(path: path, flags: O_WRONLY | O_CREAT | O_EXCL, operation: "creating")
        var first = 0
        while first < count {
            let piece = map[first..<min(first + pieceSize, count)]
            try piece.withUnsafeBytes { bytes throws(FileError) in try file.writeAll(bytes) }
            piece.discard()
            first += pieceSize
        }
        try file.sync()
        let elapsed = (clock.now - begin).components
        try FolderTree.remove(path)
        let seconds = Double(elapsed.seconds) + Double(elapsed.attoseconds) * 1e-18
        return count == 0 ? nil : Double(count) / max(seconds, 1e-9)
    }
}
