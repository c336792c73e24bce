import ApusTensor
import ApusTestSupport
import Glibc
import Testing

/// Files that are read whole.
@Suite struct FileContentsTests {
    private let folder: ScratchFolder

    init() throws { folder = try ScratchFolder() }

    @Test(arguments: [0, 1, 4095, 1 << 20, (1 << 20) + 1, 3_000_000])
    func `every size`(_ count: Int) throws {
        let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        let path = try folder.write("f", bytes)
        let contents = try FileContents(path: path)
        #expect(contents.bytes == bytes)
        try folder.write("f", text: "other")
        #expect(contents.withUnsafeBytes { Array($0) } == bytes)
        #expect(try FileContents(path: path).text == "other")
    }

    @Test func `a file above the limit is refused before it is read`() throws {
        let path = try folder.write("f", text: "12345")
        #expect(try FileContents(path: path, atMost: 5).text == "12345")
        #expect(throws: FileError.self) { try FileContents(path: path, atMost: 4) }
        #expect(truncate(path, 1 << 40) == 0)
        let error = #expect(throws: FileError.self) { try FileContents(path: path) }
        #expect(error?.description.contains("'\(path)'") == true)
    }

    @Test func `what is no file is refused by its kind`() throws {
        mkfifo(folder.file("pipe"), 0o600)
        for path in [folder.path, folder.file("pipe")] {
            guard
                case .wrongKind(path, _, _) = #expect(
                    throws: FileError.self, performing: { try FileContents(path: path) })
            else {
                Issue.record("another error")
                continue
            }
        }
        #expect(throws: FileError.notFound(path: folder.file("none"))) { try FileContents(path: folder.file("none")) }
    }
}
