import ApusTensor
import Glibc

/// Bytes of text in order, whatever they are packed in.
protocol ByteReader: AnyObject {
    /// Reads at least one byte into `target`, which is not empty; 0 means the end.
    ///
    /// - Throws: ``DataError`` that names the file.
    func read(into target: UnsafeMutableRawBufferPointer) throws(DataError) -> Int
}

/// A file as it is, or standard input.
final class PlainReader: ByteReader {
    private let descriptor: Int32
    private let name: String

    /// Opens a file; `nil` is standard input.
    ///
    /// - Throws: ``DataError/unreadable(path:reason:)``
    init(path: String?) throws(DataError) {
        name = path ?? InputFile.standardInput
        descriptor = path.map { path in Int32(retrying { Int(open(path, O_RDONLY | O_CLOEXEC)) }) } ?? STDIN_FILENO
        if descriptor < 0 { throw .unreadable(path: name, reason: String(cString: strerror(errno))) }
    }

    deinit {
        if descriptor > STDERR_FILENO { close(descriptor) }
    }

    func read(into target: UnsafeMutableRawBufferPointer) throws(DataError) -> Int {
        let count = retrying { Glibc.read(descriptor, target.baseAddress, target.count) }
        if count < 0 { throw .unreadable(path: name, reason: String(cString: strerror(errno))) }
        return count
    }
}
