import ApusTensor
import ApusTestSupport
import Glibc
import Testing

@testable import ApusData

/// Files that are packed, damaged, or no text at all.
@Suite struct InputTests {
    private let scratch: ScratchFolder

    init() throws { scratch = try ScratchFolder() }

    private func error(_ inputs: [String], _ format: InputFormat = .auto) -> DataError? {
        let error = #expect(throws: DataError.self) { try scratch.prepare(inputs, "out", format: format) }
        #expect((try? FolderTree.names(in: scratch.path).filter { $0.hasPrefix("out") }) == [])
        return error
    }

    @Test func `gzip and zstd are unpacked, of several members and frames too`() throws {
        let texts = sampleTexts(4000, seed: 5)
        let first = texts[..<2000].map { "{\"text\": \(jsonString($0))}\n" }.joined()
        let second = texts[2000...].map { "{\"text\": \(jsonString($0))}\n" }.joined()
        let gzip = try scratch.write("a.jsonl.gz", gzipped(first) + gzipped(second))
        let zstd = try scratch.write("b.jsonl.zst", zstandard(first) + zstandard(second))
        for (path, name) in [(gzip, "g"), (zstd, "z")] {
            let corpus = try scratch.prepare([path], name)
            #expect(try corpus.training.documents() == byteDocuments(texts), "\(name)")
        }
        let text = try scratch.write("c.txt.gz", gzipped("one document"))
        #expect(try scratch.prepare([text], "t").training.documents() == byteDocuments(["one document"]))
        // Much more comes out than goes in.
        let wide = String(repeating: "ab", count: 5_000_000)
        let bomb = try scratch.prepare([scratch.write("d.zst", zstandard(wide))], "w")
        #expect(bomb.training.count == wide.utf8.count + 1)
    }

    @Test func `damaged packing is refused and named`() throws {
        let text = sampleTexts(2000, seed: 6).joined(separator: "\n")
        for (name, packed) in try [("a.txt.gz", gzipped(text)), ("a.txt.zst", zstandard(text))] {
            let path = scratch.file(name)
            try scratch.write(name, Array(packed.dropLast(packed.count / 3)))
            let cut = try #require(error([path]))
            #expect(cut.description.contains("ends too early") && cut.description.contains(path), "\(cut)")
            var flipped = packed
            flipped[packed.count / 2] ^= 0x55
            try scratch.write(name, flipped)
            // What comes out before the damage is certain may be no text.
            switch try #require(error([path])) {
            case .badCompression(path, _, _), .notUTF8(path, _), .binary(path, _, _): break
            case let error: Issue.record("\(error)")
            }
            try scratch.write(name, text: text)
            let plain = try #require(error([path]))
            guard case .badCompression(path, _, _) = plain else {
                Issue.record("\(plain)")
                continue
            }
        }
    }

    @Test func `what is no text is refused with file and offset`() throws {
        let long = Array(String(repeating: "ä", count: 300_000).utf8)
        for offset in [0, 1000, 299_998, 599_998] {
            let path = try scratch.write("a.txt", long[..<offset] + [0xC3] + long[offset...])
            #expect(error([path]) == .notUTF8(path: path, offset: offset))
            try scratch.write("a.txt", long[..<offset] + [0] + long[offset...])
            #expect(error([path]) == .binary(path: path, offset: offset, byte: 0))
        }
        let path = try scratch.write("a.txt", long.dropLast())
        #expect(error([path]) == .notUTF8(path: path, offset: 599_998))
    }

    @Test(arguments: [
        ("{\"text\": \"a\"}\nnonsense\n", 2, "column 1"), ("{\"text\": \"a\"}\n\n{\"body\": \"b\"}", 3, "no \"text\""),
        ("{\"text\": 5}", 1, "the text in double quotes"), ("{\"text\": \"a\", \"text\": \"b\"}", 1, "twice"),
        ("{\"text\": \"a\"", 1, "column 13"), ("[\"text\"]", 1, "an object"),
        ("{\"text\": \"a\"} x", 1, "after the end"),
        ("{\"text\": \"\\ud800\"}", 1, "surrogate"),
    ])
    func `a bad line is named`(_ text: String, _ line: Int, _ part: String) throws {
        let path = try scratch.write("a.jsonl", text: text)
        let error = try #require(self.error([path]))
        guard case .badLine(path, line, let reason) = error else {
            Issue.record("\(error)")
            return
        }
        #expect(reason.contains(part), "\(reason)")
        #expect(error.description.contains("line \(line)") && error.description.contains(path))
    }

    @Test func `bytes that are no UTF-8 are found in lines too`() throws {
        let path = try scratch.write("a.jsonl", Array("{\"text\": \"a".utf8) + [0xFF] + Array("\"}\n".utf8))
        let error = try #require(self.error([path]))
        #expect(error.description.contains("line 1") && error.description.contains("UTF-8"), "\(error)")
    }

    @Test func `nothing to read is refused`() throws {
        let none = scratch.file("none")
        #expect(error([none])?.description.contains("No such file") == true)
        mkdir(scratch.file("empty"), 0o755)
        #expect(error([scratch.file("empty")]) == .noText(path: scratch.file("empty")))
        let blank = try scratch.write("a.txt", [])
        #expect(error([blank]) == .empty(path: blank))
        let text = try scratch.write("b.txt", [65])
        mkdir(scratch.file("taken"), 0o755)
        #expect(throws: DataError.outputExists(path: scratch.file("taken"))) {
            try scratch.prepare([text], "taken")
        }
        #expect(throws: TokenizerError.self) { try NamedVocabulary.open(scratch.file("none.json")) }
    }

    /// The first problem of the text is told, however threads come to it.
    @Test func `the message does not depend on threads`() throws {
        var lines = sampleTexts(20_000, seed: 7).map { "{\"text\": \(jsonString($0))}" }
        for bad in [4001, 4002, 9000] { lines[bad] = "{" }
        let path = try scratch.write("a.jsonl", text: lines.joined(separator: "\n"))
        for threads in [1, 2, 5] {
            let error = #expect(throws: DataError.self) { try scratch.prepare([path], "out", threads: threads) }
            guard case .badLine(path, 4002, _) = error else {
                Issue.record("\(threads) threads: \(String(describing: error))")
                continue
            }
        }
    }
}

/// A gzip file of one member.
private func gzipped(_ text: String) throws -> [UInt8] {
    typealias Open = @convention(c) (UnsafePointer<CChar>, UnsafePointer<CChar>) -> OpaquePointer?
    typealias Write = @convention(c) (OpaquePointer, UnsafeRawPointer, UInt32) -> Int32
    typealias Close = @convention(c) (OpaquePointer) -> Int32
    let library = try #require(SharedLibrary("libz.so.1"))
    let open = try #require(library.function("gzopen", as: Open.self))
    let write = try #require(library.function("gzwrite", as: Write.self))
    let close = try #require(library.function("gzclose", as: Close.self))
    let scratch = try ScratchFolder()
    let file = try #require(open(scratch.file("x.gz"), "wb"))
    let bytes = Array(text.utf8)
    #expect(write(file, bytes, UInt32(bytes.count)) == Int32(bytes.count))
    #expect(close(file) == 0)
    return try scratch.bytes("x.gz")
}

/// A zstd file of one frame.
private func zstandard(_ text: String) throws -> [UInt8] {
    typealias Bound = @convention(c) (Int) -> Int
    typealias Compress = @convention(c) (UnsafeMutableRawPointer, Int, UnsafeRawPointer, Int, Int32) -> Int
    let library = try #require(SharedLibrary("libzstd.so.1"))
    let bound = try #require(library.function("ZSTD_compressBound", as: Bound.self))
    let compress = try #require(library.function("ZSTD_compress", as: Compress.self))
    let bytes = Array(text.utf8)
    var packed = [UInt8](repeating: 0, count: bound(bytes.count))
    let count = compress(&packed, packed.count, bytes, bytes.count, 3)
    #expect(count > 0 && count <= packed.count)
    return Array(packed[..<count])
}
