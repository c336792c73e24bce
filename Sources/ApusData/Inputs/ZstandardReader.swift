import ApusTensor
import Glibc

/// A `.zst` file, unpacked by libzstd (`ZSTD_decompressStream`), frame after frame.
final class ZstandardReader: ByteReader {
    /// `ZSTD_inBuffer` and `ZSTD_outBuffer`, which have the same layout.
    private struct Buffer {
        var base: UnsafeMutableRawPointer?
        var size: Int
        var position: Int
    }

    private typealias Step =
        @convention(c) (OpaquePointer, UnsafeMutableRawPointer, UnsafeMutableRawPointer) -> Int

    private struct Functions: Sendable {
        let create: @convention(c) () -> OpaquePointer?
        let free: @convention(c) (OpaquePointer) -> Int
        let step: Step
        let isError: @convention(c) (Int) -> UInt32
        let errorName: @convention(c) (Int) -> UnsafePointer<CChar>?

        init?() {
            guard let library = SharedLibrary("libzstd.so.1"),
                let create = library.function("ZSTD_createDStream", as: type(of: self.create)),
                let free = library.function("ZSTD_freeDStream", as: type(of: self.free)),
                let step = library.function("ZSTD_decompressStream", as: Step.self),
                let isError = library.function("ZSTD_isError", as: type(of: self.isError)),
                let errorName = library.function("ZSTD_getErrorName", as: type(of: self.errorName))
            else { return nil }
            self.create = create
            self.free = free
            self.step = step
            self.isError = isError
            self.errorName = errorName
        }
    }

    private static let functions = Functions()
    private let functions: Functions
    private let path: String
    private let stream: OpaquePointer
    private let packed: PlainReader
    private let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 17, alignment: 64)
    private var input = Buffer(base: nil, size: 0, position: 0)
    /// What libzstd still expects of the frame it is in; 0 between frames.
    private var expected = 0
    private var isBegun = false
    /// Whether the last output was full, so that there may be more of it without further input.
    private var mayHoldMore = false

    /// - Throws: ``DataError``
    init(path: String) throws {
        guard let functions = Self.functions else {
            throw DataError.missingLibrary(path: path, library: "zstd (libzstd.so.1)", package: "libzstd1")
        }
        packed = try PlainReader(path: path)
        guard let stream = functions.create() else {
            throw DataError.unreadable(path: path, reason: "there is not enough memory to unpack it")
        }
        self.functions = functions
        self.path = path
        self.stream = stream
    }

    deinit {
        _ = functions.free(stream)
        chunk.deallocate()
    }

    func read(into target: UnsafeMutableRawBufferPointer) throws(DataError) -> Int {
        var output = Buffer(base: target.baseAddress, size: target.count, position: 0)
        while output.position == 0 {
            if input.position == input.size, !mayHoldMore {
                input = Buffer(base: chunk.baseAddress, size: try packed.read(into: chunk), position: 0)
                if input.size == 0 {
                    guard isBegun, expected == 0 else { throw fault(isBegun ? "it ends too early" : "it is empty") }
                    return 0
                }
            }
            isBegun = true
            expected = functions.step(stream, &output, &input)
            if functions.isError(expected) != 0 {
                throw fault(functions.errorName(expected).map { String(cString: $0) } ?? "it is damaged")
            }
            mayHoldMore = output.position == output.size
        }
        return output.position
    }

    private func fault(_ reason: String) -> DataError {
        .badCompression(path: path, format: "zstd", reason: reason)
    }
}
