import ApusTensor
import ApusTestSupport
import Glibc
import Testing

@testable import ApusModels

/// Seeded damage to valid files: a typed error or a consistent result, never a crash, never much memory.
@Suite struct FileMutationTests {
    static let rounds = 20_000
    /// Bytes the whole test process may take; the files have less than a kilobyte.
    static let memoryLimit = 64 << 20

    @Test func safetensors() async {
        await #expect(processExitsWith: .success) {
            let folder = try ScratchFolder()
            try writeSample(to: folder.file("m"))
            let original = try fileBytes(folder.file("m"))
            var random = SeededGenerator(seed: 20_000)
            let before = peakMemory()
            var accepted = 0
            var refusals: [String: Int] = [:]
            for round in 0..<Self.rounds {
                let bytes = mutated(original, &random)
                // Every tenth goes through a real file and its mapping.
                if round % 10 == 0 { _ = try? SafetensorsFile(path: folder.write("m", bytes)) }
                if let error = headerError(bytes) {
                    refusals[kind(error), default: 0] += 1
                    continue
                }
                accepted += 1
                let header = try bytes.withUnsafeBytes { try SafetensorsHeader($0, path: "m") }
                let sum = header.entries.reduce(0) { sum, entry in
                    #expect(entry.range.upperBound <= bytes.count)
                    #expect(entry.range.count * 8 == entry.shape.reduce(entry.stored.bitCount, *))
                    return sum + entry.range.count
                }
                #expect(sum <= bytes.count)
            }
            #expect(peakMemory() - before < Self.memoryLimit)
            // Damage to data or to letters of a name passes, the rest must be found by checks of every sort: a round
            // that never gets past the first check would test nothing.
            #expect(accepted > Self.rounds / 100, "\(accepted)")
            for sort in ["truncated", "malformed", "invalidTensor", "unsupportedDType"] {
                #expect(refusals[sort, default: 0] > Self.rounds / 200, "\(refusals)")
            }
            #expect(refusals.count == 4, "\(refusals)")
        }
    }

    @Test func indexAndManifest() async {
        await #expect(processExitsWith: .success) {
            let plan = try ShardPlan(sampleSpecs, limit: 64, base: "model", path: "")
            let index = Array(SafetensorsIndex.encode(plan).utf8)
            let digests = ["a": FileDigest(count: 7, checksum: 0xABC), "b": FileDigest(count: 0, checksum: 1)]
            let manifest = Array(try CheckpointManifest(files: digests).json.utf8)
            var random = SeededGenerator(seed: 7)
            let before = peakMemory()
            for _ in 0..<Self.rounds {
                let damagedIndex = mutated(index, &random)
                if let index = try? damagedIndex.withUnsafeBytes({ try SafetensorsIndex(path: "i", $0) }) {
                    for shard in index.shards { #expect(isPlainFileName(shard.name) && !shard.tensors.isEmpty) }
                }
                let damagedManifest = mutated(manifest, &random)
                let read = try? damagedManifest.withUnsafeBytes { try CheckpointManifest($0, path: "m") }
                if let read { for name in read.files.keys { #expect(isPlainFileName(name)) } }
            }
            #expect(peakMemory() - before < Self.memoryLimit)
        }
    }

    /// A header of the greatest length, full of the cheapest entries, is read in a bounded multiple of its size.
    @Test func largestShapeListTakesLittle() async {
        await #expect(processExitsWith: .success) {
            let bytes = safetensorsBytes(shapeDigits: 40_000_000)
            let before = peakMemory()
            let header = try? bytes.withUnsafeBytes { try SafetensorsHeader($0, path: "m") }
            #expect(header == nil)
            #expect(peakMemory() - before < Self.memoryLimit)
        }
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

private func kind(_ error: CheckpointFileError) -> String {
    switch error {
    case .truncated: "truncated"
    case .malformed: "malformed"
    case .invalidTensor: "invalidTensor"
    case .unsupportedDType: "unsupportedDType"
    default: "\(error)"
    }
}

/// One to four damages: a flipped bit, a byte of JSON or of chance, a cut, a copied or removed stretch.
private func mutated(_ original: [UInt8], _ random: inout SeededGenerator) -> [UInt8] {
    var bytes = original
    let alphabet = Array("{}[]\",:0123456789-.eE\\u \u{0}".utf8)
    for _ in 0..<Int.random(in: 1...4, using: &random) {
        guard !bytes.isEmpty else { return bytes }
        let at = Int.random(in: 0..<bytes.count, using: &random)
        let end = min(bytes.count, at + Int.random(in: 1...24, using: &random))
        switch Int.random(in: 0..<8, using: &random) {
        case 0: bytes[at] ^= 1 << UInt8.random(in: 0...7, using: &random)
        case 1: bytes[at] = alphabet[Int.random(in: 0..<alphabet.count, using: &random)]
        case 2: bytes[at] = UInt8.random(in: 0...255, using: &random)
        case 3: bytes.removeLast(Int.random(in: 0..<min(bytes.count, 40), using: &random))
        case 4: bytes.insert(contentsOf: bytes[at..<end], at: at)
        case 5: bytes.removeSubrange(at..<end)
        case 6: bytes.insert(alphabet[Int.random(in: 0..<alphabet.count, using: &random)], at: at)
        // The length field and the digits of offsets are where lies matter most.
        default: bytes[at % 8] = UInt8.random(in: 0...255, using: &random)
        }
    }
    return bytes
}

/// Highest resident size of this process so far, in bytes.
private func peakMemory() -> Int {
    var usage = rusage()
    getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
    return usage.ru_maxrss * 1024
}
