import ApusTensor
import ApusTestSupport
import Glibc
import Testing

@testable import ApusModels

/// Seeded damage to valid files: a typed error or a consistent result, never a crash, a hang or much memory.
@Suite struct FileMutationTests {
    @Test func `safetensors of our writer`() async {
        await #expect(processExitsWith: .success) {
            let folder = try ScratchFolder()
            try writeSample(to: folder.file("m"))
            let original = try fileBytes(folder.file("m"))
            let header = try original.withUnsafeBytes { try SafetensorsHeader($0, path: "m") }
            let data = original.count - (header.entries.map(\.range.lowerBound).min() ?? 0)
            let mutator = Mutator([original], seed: 1, words: words, fields: 0..<8) { frame(&$0, data: data) }
            MutationRun(mutator, rounds: MutationRun.rounds / 2) { bytes in
                let verdict = verdict(bytes, fileSize: bytes.count)
                guard case .accepted = verdict, bytes.count % 16 == 0 else { return verdict }
                return verdictOfFile(bytes, folder)
            }.expectSound(refused: sorts, each: 0.005)
        }
    }

    @Test func `safetensors of Hugging Face`() async {
        await #expect(processExitsWith: .success) {
            let file = try fileBytes(goldenFolder("mixtral") + "/model.safetensors")
            let length = file.prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) }
            // The header is what the reader reads; the tensors behind it only have a size.
            let original = Array(file.prefix(8 + length))
            let data = file.count - original.count
            let mutator = Mutator([original], seed: 2, words: words, fields: 0..<8) { frame(&$0, data: 0) }
            MutationRun(mutator, rounds: MutationRun.rounds / 2) { verdict($0, fileSize: $0.count + data) }
                .expectSound(refused: sorts, each: 0.005)
        }
    }

    @Test func indexes() async {
        await #expect(processExitsWith: .success) {
            let plan = try ShardPlan(sampleSpecs, limit: 64, base: "model", path: "")
            let mutator = Mutator([Array(SafetensorsIndex.encode([plan]).utf8)], seed: 3)
            MutationRun(mutator) { bytes in
                do throws(FileError) {
                    let index = try bytes.withUnsafeBufferPointer { bytes throws(FileError) in
                        try SafetensorsIndex(path: "i", UnsafeRawBufferPointer(bytes))
                    }
                    let shards = index.shards
                    guard shards.allSatisfy({ isPlainFileName($0.name) && !$0.tensors.isEmpty }) else {
                        return .wrong("a shard that is no file, or without tensors")
                    }
                    let count = shards.reduce(0) { $0 + $1.tensors.count }
                    return count == index.weightMap.count ? .accepted : .wrong("\(count) tensors")
                } catch {
                    return .refused(kind(error))
                }
            }.expectSound(refused: ["malformed", "unsafeFileName"])
        }
    }

    @Test func `checksums of a checkpoint`() async {
        await #expect(processExitsWith: .success) {
            let digests = ["a": FileDigest(count: 7, checksum: 0xABC), "b": FileDigest(count: 0, checksum: 1)]
            let mutator = Mutator([Array(try CheckpointManifest(files: digests).json.utf8)], seed: 4)
            MutationRun(mutator) { bytes in
                do throws(FileError) {
                    let manifest = try bytes.withUnsafeBufferPointer { bytes throws(FileError) in
                        try CheckpointManifest(UnsafeRawBufferPointer(bytes), path: "m")
                    }
                    let isPlain = manifest.files.allSatisfy { isPlainFileName($0.key) && $0.value.count >= 0 }
                    return isPlain ? .accepted : .wrong("\(manifest.files)")
                } catch {
                    return .refused(kind(error))
                }
            }.expectSound(refused: ["malformed", "unsafeFileName"], each: 0.00001)
        }
    }

    /// A header of the greatest length, full of the cheapest entries, is read in a bounded multiple of its size.
    @Test func largestShapeListTakesLittle() async {
        await #expect(processExitsWith: .success) {
            let bytes = safetensorsBytes(shapeDigits: 40_000_000)
            let mutator = Mutator([[0]], seed: 0)
            let run = MutationRun(mutator, rounds: 1) { _ in
                headerError(bytes) == nil ? .wrong("accepted") : .refused("malformed")
            }
            #expect(run.wrong.isEmpty)
            #expect(run.memoryGrowth < MutationRun.mostMemory / 2, "\(run)")
        }
    }
}

private let words =
    Mutator.json + [
        "\"dtype\":", "\"shape\":[", "\"data_offsets\":[", "\"__metadata__\":{", "\"F32\"", "\"BF16\"", "\"F4\"",
        "\"I64\"",
        "\"U8\"", "[0,0]", "[]",
    ]

/// How these readers refuse.
private let sorts = ["truncated", "malformed", "invalidTensor", "unsupportedDType"]

/// Makes the length at the start of a file fit the text between it and the last `data` bytes.
private func frame(_ bytes: inout [UInt8], data: Int) {
    guard bytes.count >= 8 + data else { return }
    withUnsafeBytes(of: UInt64(bytes.count - 8 - data).littleEndian) { bytes.replaceSubrange(0..<8, with: $0) }
}

/// Reads a header; what is accepted must cover its data exactly.
private func verdict(_ bytes: [UInt8], fileSize: Int) -> MutationVerdict {
    do throws(FileError) {
        let header = try bytes.withUnsafeBufferPointer { bytes throws(FileError) in
            try SafetensorsHeader(UnsafeRawBufferPointer(bytes), fileSize: fileSize, path: "m")
        }
        guard Set(header.entries.map(\.name)).count == header.entries.count else { return .wrong("a name comes twice") }
        var covered = header.entries.first?.range.lowerBound ?? fileSize
        for entry in header.entries {
            let size = entry.shape.contains(0) ? 0 : entry.shape.reduce(entry.stored.bitCount, *)
            guard entry.range.lowerBound == covered, entry.range.count * 8 == size,
                entry.count * entry.stored.bitCount == size
            else { return .wrong("\(entry)") }
            covered = entry.range.upperBound
        }
        return covered == fileSize ? .accepted : .wrong("\(covered) of \(fileSize) bytes")
    } catch {
        return .refused(kind(error))
    }
}

/// The same through a real file and its mapping, every byte of which is read.
private func verdictOfFile(_ bytes: [UInt8], _ folder: ScratchFolder) -> MutationVerdict {
    do {
        let file = try SafetensorsFile(path: folder.write("m-\(pthread_self())", bytes))
        let read = try file.names.reduce(0) { sum, name in
            try file.bytes(name).withUnsafeBytes { sum + $0.reduce(0) { $0 + Int($1) } }
        }
        let start = file.entries.first?.range.lowerBound ?? bytes.count
        return read == bytes[start...].reduce(0) { $0 + Int($1) } ? .accepted : .wrong("other bytes")
    } catch {
        return .wrong("accepted in memory, and in a file: \(error)")
    }
}

/// `{"a":{"shape":[1,1,1,...` of this many numbers.
private func safetensorsBytes(shapeDigits: Int) -> [UInt8] {
    let start = Array("{\"a\":{\"shape\":[1".utf8)
    var bytes = withUnsafeBytes(of: UInt64(start.count + 2 * shapeDigits).littleEndian) { Array($0) } + start
    bytes.reserveCapacity(bytes.count + 2 * shapeDigits)
    for _ in 0..<shapeDigits {
        bytes.append(UInt8(ascii: ","))
        bytes.append(UInt8(ascii: "1"))
    }
    return bytes
}

private func kind(_ error: FileError) -> String {
    switch error {
    case .truncated: "truncated"
    case .malformed: "malformed"
    case .invalidTensor: "invalidTensor"
    case .unsupportedDType: "unsupportedDType"
    case .unsafeFileName: "unsafeFileName"
    default: "\(error)"
    }
}
