import ApusTensor

@testable import ApusModels

/// A safetensors file with this header text, whatever it says, and `data` bytes after it.
func safetensors(_ header: [UInt8], data: Int, length: UInt64? = nil) -> [UInt8] {
    withUnsafeBytes(of: (length ?? UInt64(header.count)).littleEndian) { Array($0) } + header
        + (0..<data).map { UInt8(truncatingIfNeeded: $0) }
}

func safetensors(_ header: String, data: Int, length: UInt64? = nil) -> [UInt8] {
    safetensors(Array(header.utf8), data: data, length: length)
}

/// The error of reading these bytes as a safetensors file, or nil if they pass.
func headerError(_ bytes: [UInt8]) -> FileError? {
    do throws(FileError) {
        _ = try bytes.withUnsafeBufferPointer { bytes throws(FileError) in
            try SafetensorsHeader(UnsafeRawBufferPointer(bytes), path: "f.safetensors")
        }
        return nil
    } catch {
        return error
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
