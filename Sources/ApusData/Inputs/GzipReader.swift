import ApusTensor
import Glibc

/// A `.gz` file, unpacked by zlib (`gzread`, which also reads files of several members).
final class GzipReader: ByteReader {
    private struct Functions: Sendable {
        let open: @convention(c) (Int32, UnsafePointer<CChar>) -> OpaquePointer?
        let read: @convention(c) (OpaquePointer, UnsafeMutableRawPointer, UInt32) -> Int32
        let error: @convention(c) (OpaquePointer, UnsafeMutablePointer<Int32>) -> UnsafePointer<CChar>?
        let close: @convention(c) (OpaquePointer) -> Int32
        let buffer: @convention(c) (OpaquePointer, UInt32) -> Int32

        init?() {
            guard let library = SharedLibrary("libz.so.1"),
                let open = library.function("gzdopen", as: type(of: self.open)),
                let read = library.function("gzread", as: type(of: self.read)),
                let error = library.function("gzerror", as: type(of: self.error)),
                let close = library.function("gzclose", as: type(of: self.close)),
                let buffer = library.function("gzbuffer", as: type(of: self.buffer))
            else { return nil }
            self.open = open
            self.read = read
            self.error = error
            self.close = close
            self.buffer = buffer
        }
    }

    private static let functions = Functions()
    private let functions: Functions
    private let path: String
    private let stream: OpaquePointer

    /// - Throws: ``DataError``
    init(path: String) throws {
        guard let functions = Self.functions else {
            throw DataError.missingLibrary(path: path, library: "zlib (libz.so.1)", package: "zlib1g")
        }
        // gzread hands on what is not gzip as it is.
        var magic: [UInt8] = [0, 0]
        let plain = try PlainReader(path: path)
        let count = try magic.withUnsafeMutableBytes { try plain.read(into: $0) }
        guard count == 2, magic == [0x1F, 0x8B] else {
            throw DataError.badCompression(path: path, format: "gzip", reason: "it does not begin like a gzip file")
        }
        let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw DataError.unreadable(path: path, reason: String(cString: strerror(errno)))
        }
        guard let stream = functions.open(descriptor, "rb") else {
            Glibc.close(descriptor)
            throw DataError.unreadable(path: path, reason: "there is not enough memory to unpack it")
        }
        _ = functions.buffer(stream, 1 << 17)
        self.functions = functions
        self.path = path
        self.stream = stream
    }

    deinit { _ = functions.close(stream) }

    func read(into target: UnsafeMutableRawBufferPointer) throws(DataError) -> Int {
        guard let base = target.baseAddress else { return 0 }
        let count = functions.read(stream, base, UInt32(clamping: min(target.count, 1 << 30)))
        // A file that ends inside a member reads as an ended one, but for the state it is left in.
        var code: Int32 = 0
        let message = functions.error(stream, &code).map { String(cString: $0) }
        guard count > 0 || count == 0 && code == 0 else {
            let isCut = code == -5 || message?.contains("unexpected end") == true
            throw DataError.badCompression(
                path: path, format: "gzip", reason: isCut ? "it ends too early" : message ?? "it is damaged")
        }
        return Int(count)
    }
}
