import ApusTensor
import Glibc

@testable import ApusModels

/// A folder of its own for one test, removed at the end of its life.
final class ScratchFolder: Sendable {
    let path: String

    init() throws {
        var template = Array("/tmp/apus-files-XXXXXX".utf8CString)
        guard let made = mkdtemp(&template) else { throw CheckpointFileError.notFound(path: "/tmp") }
        path = String(cString: made)
    }

    deinit { try? FolderTree.remove(path) }

    func file(_ name: String) -> String { "\(path)/\(name)" }

    @discardableResult
    func write(_ name: String, _ bytes: [UInt8]) throws -> String {
        let handle = try FileDescriptor(path: file(name), flags: O_WRONLY | O_CREAT | O_TRUNC, operation: "test")
        try bytes.withUnsafeBytes { try handle.writeAll($0) }
        return file(name)
    }

    @discardableResult
    func write(_ name: String, text: String) throws -> String { try write(name, Array(text.utf8)) }

    func makeFolder(_ name: String) -> String {
        mkdir(file(name), 0o755)
        return file(name)
    }

    var names: [String] { get throws { try FolderTree.names(in: path) } }
}

func content(_ path: String) throws -> [UInt8] { try MappedFile(path: path).withUnsafeBytes { Array($0) } }

/// A safetensors file with this header text, whatever it says, and `data` bytes after it.
func safetensors(_ header: [UInt8], data: Int, length: UInt64? = nil) -> [UInt8] {
    withUnsafeBytes(of: (length ?? UInt64(header.count)).littleEndian) { Array($0) } + header
        + (0..<data).map { UInt8(truncatingIfNeeded: $0) }
}

func safetensors(_ header: String, data: Int, length: UInt64? = nil) -> [UInt8] {
    safetensors(Array(header.utf8), data: data, length: length)
}

/// The error of reading these bytes as a safetensors file, or nil if they pass.
func headerError(_ bytes: [UInt8]) -> CheckpointFileError? {
    do throws(CheckpointFileError) {
        _ = try bytes.withUnsafeBufferPointer { bytes throws(CheckpointFileError) in
            try SafetensorsHeader(UnsafeRawBufferPointer(bytes), path: "f.safetensors")
        }
        return nil
    } catch {
        return error
    }
}

/// A small generator for tests (SplitMix64): the same numbers everywhere for one seed.
struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var word = (state ^ (state >> 30)) &* 0xBF58_476D_1CE4_E5B9
        word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
        return word ^ (word >> 31)
    }
}

/// One tensor of each format, a zero-size and a scalar one among them, with bytes that tell places apart.
let sampleSpecs = [
    TensorSpec(name: "embed.weight", dtype: .f32, shape: [3, 5]),
    TensorSpec(name: "scalar", dtype: .f32, shape: []),
    TensorSpec(name: "layers.0.é \"quoted\"\n", dtype: .bf16, shape: [2, 3]),
    TensorSpec(name: "empty", dtype: .i32, shape: [4, 0]),
    TensorSpec(name: "ids", dtype: .i32, shape: [7]),
    TensorSpec(name: "mask", dtype: .u8, shape: [3]),
]

func sampleBytes(_ spec: TensorSpec) throws -> [UInt8] {
    let count = try spec.byteCount(path: "test")
    return (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ spec.name.utf8.count) }
}

@discardableResult
func writeSample(
    to path: String, specs: [TensorSpec] = sampleSpecs, metadata: [String: String] = ["format": "pt"]
) throws -> FileDigest {
    var writer = try SafetensorsWriter(path: path, tensors: specs, metadata: metadata)
    for spec in specs { try sampleBytes(spec).withUnsafeBytes { try writer.append($0, to: spec.name) } }
    return try writer.finish()
}
