import ApusTestSupport
import Foundation
import Testing

@testable import ApusData

/// The `tokenizers` library in Python, and what was made with it: text in nineteen languages and code, and tokenizer
/// files of every published style, once for all tests.
struct TokenizerPeer {
    static let styles = ["gpt2", "neox", "llama3", "qwen", "mixtral", "metaspace", "starcoder"]
    static let needs: Comment = "needs a Python with tokenizers and sentencepiece: set APUS_PYTHON"

    /// Whether a Python is named, as `make test` does. What it or the system lacks is a failure then, no reason to skip.
    static let isThere = ProcessInfo.processInfo.environment["APUS_PYTHON"] != nil

    /// Made at first use.
    static let shared = Result { try TokenizerPeer() }

    let folder: String
    /// Text files: one a language, and code.
    let texts: [String]

    private init() throws {
        let scratch = try ScratchFolder()
        scratchUntilExit = scratch
        atexit { scratchUntilExit = nil }
        let folder = scratch.path
        self.folder = folder
        try TokenizerPeer.script(["text", "\(folder)/text"])
        texts = folderNames("\(folder)/text").map { "\(folder)/text/\($0)" }
        // A part of the text is enough for vocabularies; what they lack falls to bytes.
        let training = ["code", "en", "de", "ja", "ru"].map { "\(folder)/text/\($0).txt" }
        try TokenizerPeer.script(
            ["make", "\(folder)/tokenizers"] + training + ["--vocabulary", "4000", "--most", "150000"])
    }

    /// The tokenizer of a style.
    func path(_ style: String) -> String { "\(folder)/tokenizers/\(style).json" }

    /// What the library makes of documents: the blocks that the script's `encode` writes.
    func encode(_ tokenizer: String, _ documents: [[UInt8]], plainOnly: Bool) throws -> [[UInt8]] {
        let name = "\(folder)/\(UUID().uuidString)"
        try Data(Blocks.joined(documents)).write(to: URL(fileURLWithPath: name + ".in"))
        try TokenizerPeer.script(
            ["encode", tokenizer, name + ".in", name + ".out"] + (plainOnly ? ["--plain"] : []))
        let result = try Data(contentsOf: URL(fileURLWithPath: name + ".out"))
        for end in [".in", ".out"] { try FileManager.default.removeItem(atPath: name + end) }
        return Blocks.cut([UInt8](result))
    }

    /// Runs the peer's script.
    @discardableResult
    static func script(_ arguments: [String]) throws -> String {
        let root = try #require(repositoryRoot())
        return try python(["\(root)/Tools/oracles/tokenizer_peer.py"] + arguments)
    }

    static func python(_ arguments: [String]) throws -> String {
        let process = try ChildProcess(
            try #require(ProcessInfo.processInfo.environment["APUS_PYTHON"]), arguments)
        guard process.wait() == .exit(0) else { throw Failure(text: process.output + process.errors) }
        return process.output
    }

    private struct Failure: Error {
        let text: String
    }
}

/// Written once, and emptied at the end of the process: values that live as long are never released.
nonisolated(unsafe) private var scratchUntilExit: ScratchFolder?

/// Byte strings one after another, each behind its length in four bytes.
enum Blocks {
    static func joined(_ blocks: [[UInt8]]) -> [UInt8] {
        var bytes: [UInt8] = []
        for block in blocks {
            withUnsafeBytes(of: UInt32(block.count).littleEndian) { bytes += $0 }
            bytes += block
        }
        return bytes
    }

    static func cut(_ bytes: [UInt8]) -> [[UInt8]] {
        var blocks: [[UInt8]] = []
        var place = 0
        while place + 4 <= bytes.count {
            let length = bytes[place..<place + 4].reversed().reduce(0) { $0 << 8 | Int($1) }
            blocks.append(Array(bytes[place + 4..<place + 4 + length]))
            place += 4 + length
        }
        return blocks
    }

    static func ids(_ block: [UInt8]) -> [Int32] {
        block.withUnsafeBytes { bytes in
            stride(from: 0, to: bytes.count, by: 4).map { bytes.loadUnaligned(fromByteOffset: $0, as: Int32.self) }
        }
    }
}
