import ApusTensor
import ApusTestSupport
import Glibc
import Testing

@testable import ApusData

/// Seeded damage to manifests, shards and lines: a typed error or tokens of the vocabulary, never a crash, a hang or much
/// memory.
@Suite struct DataMutationTests {
    @Test func manifests() async {
        await #expect(processExitsWith: .success) {
            let scratch = try ScratchFolder()
            let texts = sampleTexts(40, seed: 20)
            _ = try scratch.prepare([scratch.writeLines("l.jsonl", texts)], "out", heldOut: 0.2, tokensPerShard: 1000)
            let mutator = Mutator([try scratch.bytes("out/manifest.json")], seed: 21)
            MutationRun(mutator) { text in
                do {
                    let manifest = try text.withUnsafeBytes { try ShardManifest($0, path: "m") }
                    for shard in manifest.shards {
                        guard isPlainFileName(shard.file), shard.tokens >= shard.documents, shard.documents >= 0 else {
                            return .wrong("\(shard)")
                        }
                    }
                    guard manifest.tokens(.training) >= 0, manifest.tokens(.heldOut) >= 0 else {
                        return .wrong("a sum of tokens below zero")
                    }
                    let again = try Array(manifest.json.utf8).withUnsafeBytes { try ShardManifest($0, path: "m") }
                    return again == manifest ? .accepted : .wrong("reads back as another")
                } catch DataError.malformed {
                    return .refused("malformed")
                } catch {
                    return .wrong("\(error)")
                }
            }.expectSound(refused: ["malformed"])
        }
    }

    /// Files are what this is about, so there are fewer of them: a tenth.
    @Test func shards() async {
        await #expect(processExitsWith: .success) {
            let scratch = try ScratchFolder()
            _ = try scratch.prepare([scratch.writeLines("l.jsonl", sampleTexts(30, seed: 22))], "out")
            let mutator = Mutator(
                [try scratch.bytes("out/training-00000.tokens")], seed: 23, words: ["\u{0}", "\u{1}"], fields: 0..<64)
            MutationRun(mutator, rounds: MutationRun.rounds / 10) { bytes in
                do {
                    let path = try scratch.write("damaged-\(pthread_self())", bytes)
                    let part = ShardPart([try ShardFile(path: path)])
                    let size = try ShardHeader(bytes).vocabularySize
                    var sorts: [String] = []
                    do {
                        let tokens = try part.tokens(0..<part.count)
                        guard tokens.allSatisfy({ $0 >= 0 && Int($0) < size }) else { return .wrong("\(tokens)") }
                    } catch DataError.malformed {
                        sorts.append("tokens")
                    }
                    do {
                        let starts = try part.documentStarts(in: 0..<part.count)
                        guard zip(starts, starts.dropFirst()).allSatisfy({ $0 < $1 }),
                            starts.allSatisfy({ (1...part.count).contains($0) })
                        else { return .wrong("\(starts)") }
                    } catch DataError.malformed {
                        sorts.append("documents")
                    }
                    return sorts.isEmpty ? .accepted : .refused(sorts.joined(separator: " and "))
                } catch DataError.malformed {
                    return .refused("malformed")
                } catch {
                    return .wrong("\(error)")
                }
            }.expectSound(refused: ["malformed", "tokens", "documents", "tokens and documents"])
        }
    }

    /// Files here too.
    @Test func lines() async {
        await #expect(processExitsWith: .success) {
            let scratch = try ScratchFolder()
            _ = try scratch.writeLines("l.jsonl", sampleTexts(20, seed: 24))
            let mutator = Mutator([try scratch.bytes("l.jsonl")], seed: 25)
            MutationRun(mutator, rounds: MutationRun.rounds / 10) { bytes in
                do {
                    let path = try scratch.write("l-\(pthread_self()).jsonl", bytes)
                    let files = [InputFile(path: path, input: 0, isLines: true)]
                    let encoder = DocumentEncoder(
                        files: files, vocabulary: ByteVocabulary(), split: HeldOutSplit(fraction: 0.5))
                    let reader = DocumentReader(files)
                    while let batch = try reader.batch() {
                        let failure = encoder.encode(batch.pieces[...], of: batch.bytes).failure
                        guard let failure else { continue }
                        guard case .badLine? = failure as? DataError else { return .wrong("\(failure)") }
                        return .refused("badLine")
                    }
                    return .accepted
                } catch {
                    return .wrong("\(error)")
                }
            }.expectSound(refused: ["badLine"])
        }
    }
}

extension ShardHeader {
    /// The header of a whole file.
    fileprivate init(_ file: [UInt8]) throws {
        self = try file.withUnsafeBytes { try ShardHeader($0, fileBytes: file.count, path: "") }
    }
}
