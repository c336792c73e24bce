import ApusTestSupport
import Glibc
import Testing

@testable import ApusData

@Suite struct TextCorpusTests {
    private let scratch: ScratchFolder

    init() throws { scratch = try ScratchFolder() }

    private var folder: String { scratch.path }

    @discardableResult
    private func write(_ name: String, _ bytes: [UInt8]) throws -> String { try scratch.write(name, bytes) }

    private func corpus(_ path: String? = nil) throws -> TextCorpus {
        try TextCorpus(path: path ?? folder, vocabulary: ByteVocabulary())
    }

    private func error(_ path: String? = nil) -> DataError? { #expect(throws: DataError.self) { try corpus(path) } }

    @Test func `a file is one document with its end marked`() throws {
        let path = try write("a.txt", Array("hé\n".utf8))
        let corpus = try corpus(path)
        #expect(corpus.tokens == [0x68, 0xC3, 0xA9, 0x0A, 256])
        #expect(corpus.path == path)
    }

    @Test func `a folder's files follow their names; hidden ones and folders are left out`() throws {
        try write("b.txt", [2, 2])
        try write("a.txt", [1])
        try write("c.txt", [])
        try write(".hidden", [9])
        mkdir("\(folder)/inner", 0o755)
        mkfifo("\(folder)/pipe", 0o600)
        #expect(try corpus().tokens == [1, 256, 2, 2, 256, 256])
        #expect(try corpus("\(folder)/").tokens == corpus().tokens)
    }

    @Test func `the checksum tells texts apart, order and ends of documents too`() throws {
        var sums: Set<UInt64> = []
        for (a, b) in [([1, 2], [3]), ([1], [2, 3]), ([3], [1, 2]), ([1, 2], [4])] as [([UInt8], [UInt8])] {
            try write("a.txt", a)
            try write("b.txt", b)
            let corpus = try corpus()
            sums.insert(corpus.checksum)
            #expect(try self.corpus().checksum == corpus.checksum)
        }
        #expect(sums.count == 4)
    }

    @Test(arguments: [(0.0, 0), (0.1, 1), (0.25, 2), (0.5, 5), (0.99, 9)])
    func `the last part is held out`(_ fraction: Double, _ count: Int) throws {
        let corpus = try corpus(write("a.txt", [0x41, 2, 3, 4, 5, 6, 7, 8, 9]))
        let (training, heldOut) = corpus.split(heldOut: fraction)
        #expect(heldOut.count == count)
        #expect(Array(training + heldOut) == corpus.tokens)
    }

    @Test func `what is no text is refused with its place`() throws {
        #expect(error("\(folder)/none.txt").map { "\($0)" }?.contains("none.txt' cannot be read: No such file") == true)
        #expect(error() == .noText(path: folder))
        try write(".hidden", [9])
        #expect(error() == .noText(path: folder))
        let empty = try write("a.txt", [])
        #expect(error(empty) == .empty(path: empty))
        #expect(error() == .empty(path: empty))
        try write("b.txt", [])
        #expect(error() == .empty(path: folder))
        let binary = try write("c.txt", [65, 66, 0, 67])
        #expect(error(binary) == .binary(path: binary, offset: 2, byte: 0))
        #expect(error() == .binary(path: binary, offset: 2, byte: 0))
        mkfifo("\(folder)/pipe", 0o600)
        #expect(error("\(folder)/pipe").map { "\($0)" }?.contains("neither a file nor a folder") == true)
    }

    @Test func `a file that may not be read is refused`() async throws {
        let path = try write("a.txt", [65])
        chmod(folder, 0o755)
        chmod(path, 0)
        await #expect(processExitsWith: .success) { [path = path as String] in
            // Root may read everything, so the child gives that up.
            if geteuid() == 0 { guard setegid(65534) == 0, seteuid(65534) == 0 else { exit(9) } }
            do {
                _ = try TextCorpus(path: path, vocabulary: ByteVocabulary())
                exit(1)
            } catch {
                exit("\(error)".contains("Permission denied") ? 0 : 2)
            }
        }
    }

    @Test func `errors name the key to change`() {
        let errors: [DataError] = [
            .unreadable(path: "p", reason: "r"), .noText(path: "p"), .empty(path: "p"),
        ]
        for error in errors { #expect(error.description.contains("data.path") && error.description.contains("'p'")) }
        #expect("\(DataError.changed(path: "p", expected: 255, found: 16))".contains("checksum 10 instead of ff"))
    }

    @Test func `text that memory has no room for is refused before it is read`() throws {
        let path = try write("large.txt", [65])
        #expect(truncate(path, 1 << 42) == 0)
        guard case .tooLarge(path, 1 << 42, let most) = error(path) else {
            Issue.record("another error")
            return
        }
        #expect(most < 1 << 42)
        #expect(error(path)?.description.contains("apus data prepare") == true)
    }
}
