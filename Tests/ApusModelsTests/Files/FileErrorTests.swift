import ApusTensor
import Testing

@testable import ApusModels

@Suite struct FileErrorTests {
    static let all: [FileError] = [
        .notFound(path: "P"), .wrongKind(path: "P", found: "a folder", wanted: "a file"),
        .permissionDenied(path: "P", operation: "opening"),
        .noSpace(path: "P", operation: "writing", free: 3, reason: "no space left"),
        .system(path: "P", operation: "reading", code: 5), .alreadyExists(path: "P"), .busy(path: "P", temporary: "T"),
        .truncated(path: "P", what: "its header", bytes: 1, needed: 8), .malformed(path: "P", offset: 9, reason: "R"),
        .invalidTensor(path: "P", tensor: "t", reason: "R"),
        .unsupportedDType(path: "P", tensor: "t", found: "F16", readable: "F32"),
        .valueOutOfRange(path: "P", tensor: "t", element: 1, value: 1 << 40),
        .noSuchTensor(path: "P", tensor: "t", known: ["a"]), .missingShard(index: "P", shard: "s", tensor: "t"),
        .notInShard(index: "P", shard: "s", tensor: "t"), .notInIndex(index: "P", shard: "s", tensor: "t"),
        .unsafeFileName(path: "P", name: "../x"), .writeOutOfOrder(path: "P", reason: "R"),
        .wrongSize(path: "P", expected: 1, found: 2), .wrongChecksum(path: "P", expected: 1, found: 2),
    ]

    /// Where, what, and after the semicolon what would work.
    @Test(arguments: all)
    func saysWhereWhatAndWhatWouldWork(_ error: FileError) throws {
        let text = error.description
        #expect(text.hasPrefix("'P'"), "\(text)")
        #expect(text.contains(": ") && text.contains("; "), "\(text)")
        #expect(text != "checkpoint file error")
    }

    @Test func namesAreFitForATerminal() {
        #expect(quoted("a\u{1B}[31m\n") == "'a\\u{001B}[31m\\n'" || !quoted("a\u{1B}[31m\n").contains("\u{1B}"))
        let long = quoted(String(repeating: "x", count: 1_000_000) + "end")
        #expect(long.utf8.count < 300 && long.hasSuffix("end'"))
    }
}
