import ApusTensor
import Glibc
import Testing

@testable import ApusData

/// Seeded damage to manifests, shards and lines: a typed error or tokens of the vocabulary, never a crash, never much
/// memory. `APUS_SOAK=1` runs ten times as many.
@Suite struct DataMutationTests {
    /// Bytes the whole test process may take; the files have a few kilobytes.
    static let memoryLimit = 64 << 20

    static var rounds: Int { getenv("APUS_SOAK").map { String(cString: $0) } == "1" ? 200_000 : 20_000 }

    @Test func manifests() async {
        await #expect(processExitsWith: .success) {
            let scratch = try DataScratch()
            let texts = sampleTexts(40, seed: 20)
            _ = try scratch.prepare([scratch.writeLines("l.jsonl", texts)], "out", heldOut: 0.2, tokensPerShard: 300)
            let original = try scratch.bytes("out/manifest.json")
            var random = SeededGenerator(state: 21)
            let before = peakMemory()
            var (accepted, refused) = (0, 0)
            for _ in 0..<Self.rounds {
                let text = mutated(original, &random)
                guard let manifest = try? text.withUnsafeBytes({ try ShardManifest($0, path: "m") }) else {
                    refused += 1
                    continue
                }
                accepted += 1
                for shard in manifest.shards { #expect(isPlainFileName(shard.file) && shard.tokens >= shard.documents) }
                #expect(manifest.tokens(.training) >= 0)
                let again = Array(manifest.json.utf8)
                #expect(try again.withUnsafeBytes { try ShardManifest($0, path: "m") } == manifest)
            }
            #expect(accepted > Self.rounds / 100 && refused > Self.rounds / 2, "\(accepted) \(refused)")
            #expect(peakMemory() - before < Self.memoryLimit)
        }
    }

    @Test func shards() async {
        await #expect(processExitsWith: .success) {
            let scratch = try DataScratch()
            _ = try scratch.prepare([scratch.writeLines("l.jsonl", sampleTexts(30, seed: 22))], "out")
            let original = try scratch.bytes("out/training-00000.tokens")
            let path = scratch.file("damaged")
            var random = SeededGenerator(state: 23)
            let before = peakMemory()
            var (opened, read, listed) = (0, 0, 0)
            for _ in 0..<Self.rounds / 4 {
                try scratch.write("damaged", mutated(original, &random, head: 64))
                guard let file = try? ShardFile(path: path, number: 0, windows: MappedWindows(limit: 2)) else {
                    continue
                }
                opened += 1
                let part = ShardPart([file])
                if let tokens = try? part.tokens(0..<part.count) {
                    read += 1
                    #expect(tokens.allSatisfy { (0..<Int32(file.header.vocabularySize)).contains($0) })
                }
                if let starts = try? part.documentStarts(in: 0..<part.count) {
                    listed += 1
                    #expect(zip(starts, starts.dropFirst()).allSatisfy { $0 < $1 })
                    #expect(starts.allSatisfy { (1...part.count).contains($0) })
                }
            }
            #expect(
                opened > Self.rounds / 100 && read > 0 && listed > 0 && read < opened, "\(opened) \(read) \(listed)")
            #expect(peakMemory() - before < Self.memoryLimit)
        }
    }

    @Test func lines() async {
        await #expect(processExitsWith: .success) {
            let scratch = try DataScratch()
            let path = try scratch.writeLines("l.jsonl", sampleTexts(20, seed: 24))
            let original = try scratch.bytes("l.jsonl")
            var random = SeededGenerator(state: 25)
            let before = peakMemory()
            var (accepted, refused) = (0, 0)
            for _ in 0..<Self.rounds / 4 {
                try scratch.write("l.jsonl", mutated(original, &random))
                let files = [InputFile(path: path, input: 0, isLines: true)]
                let encoder = DocumentEncoder(
                    files: files, vocabulary: ByteVocabulary(), split: HeldOutSplit(fraction: 0.5))
                let reader = DocumentReader(files)
                while let batch = try reader.batch() {
                    let encoded = encoder.encode(batch.pieces[...], of: batch.bytes)
                    if let failure = encoded.failure {
                        #expect(failure is DataError)
                        refused += 1
                    } else {
                        accepted += 1
                    }
                }
            }
            #expect(accepted > Self.rounds / 100 && refused > Self.rounds / 20, "\(accepted) \(refused)")
            #expect(peakMemory() - before < Self.memoryLimit)
        }
    }
}

/// One to four damages: a flipped bit, a byte of JSON or of chance, a cut, a copied or removed stretch.
private func mutated(_ original: [UInt8], _ random: inout SeededGenerator, head: Int = 0) -> [UInt8] {
    var bytes = original
    let alphabet = Array("{}[]\",:0123456789-.eE\\u \n".utf8)
    for _ in 0..<Int.random(in: 1...4, using: &random) {
        guard !bytes.isEmpty else { return bytes }
        let at = Int.random(in: 0..<bytes.count, using: &random)
        let end = min(bytes.count, at + Int.random(in: 1...24, using: &random))
        switch Int.random(in: 0..<12, using: &random) {
        case 0: bytes.removeLast(Int.random(in: 0..<min(bytes.count, 40), using: &random))
        case 1: bytes.insert(contentsOf: bytes[at..<end], at: at)
        case 2: bytes.removeSubrange(at..<end)
        case 3, 4: bytes[at] = alphabet[Int.random(in: 0..<alphabet.count, using: &random)]
        case 5, 6: bytes[at] = UInt8.random(in: 0...255, using: &random)
        // The counts are where lies matter most.
        case 7 where head > 0: bytes[at % min(head, bytes.count)] = UInt8.random(in: 0...255, using: &random)
        default: bytes[at] ^= 1 << UInt8.random(in: 0...7, using: &random)
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
