import ApusTensor
import ApusTestSupport
import Glibc
import Testing

@testable import ApusModels

@Suite struct CheckpointManifestTests {
    private func sample(_ folder: ScratchFolder) throws -> CheckpointManifest {
        try folder.write("config.json", text: "{}")
        try folder.write("empty", [])
        try writeSample(to: folder.file("model.safetensors"))
        let manifest = try CheckpointManifest(ofFolder: folder.path)
        try manifest.write(toFolder: folder.path)
        return manifest
    }

    private func verify(_ folder: ScratchFolder) -> FileError? {
        do throws(FileError) {
            try CheckpointManifest(folder: folder.path).verify(folder: folder.path)
            return nil
        } catch {
            return error
        }
    }

    @Test func roundTrip() throws {
        let folder = try ScratchFolder()
        let manifest = try sample(folder)
        #expect(try CheckpointManifest(folder: folder.path + "/") == manifest)
        #expect(manifest.files.keys.sorted() == ["config.json", "empty", "model.safetensors"])
        #expect(verify(folder) == nil)
        try folder.write("README.md", text: "not listed, not checked")
        #expect(verify(folder) == nil)
    }

    @Test func flippedBitOfAFileIsNamed() throws {
        let folder = try ScratchFolder()
        let manifest = try sample(folder)
        let path = folder.file("model.safetensors")
        let bytes = try fileBytes(path)
        // Every bit is tried on the checksum itself; a stride prime to 8 keeps the number of files small.
        for bit in stride(from: 0, to: bytes.count * 8, by: 13) {
            var damaged = bytes
            damaged[bit / 8] ^= 1 << (bit % 8)
            try folder.write("model.safetensors", damaged)
            let error = #expect(throws: FileError.self) { try manifest.verify(folder: folder.path) }
            guard case .wrongChecksum(path, _, _) = error else {
                Issue.record("bit \(bit)")
                return
            }
        }
    }

    @Test func truncatedAndMissingFilesAreNamed() throws {
        let folder = try ScratchFolder()
        _ = try sample(folder)
        let path = folder.file("model.safetensors")
        let bytes = try fileBytes(path)
        for count in [0, 1, bytes.count - 1] {
            try folder.write("model.safetensors", Array(bytes[..<count]))
            #expect(verify(folder) == .wrongSize(path: path, expected: bytes.count, found: count))
        }
        unlink(path)
        #expect(verify(folder) == .notFound(path: path))
        mkdir(path, 0o755)
        #expect(verify(folder) == .wrongKind(path: path, found: "a folder", wanted: "a file"))
    }

    @Test func everyFlippedBitOfTheManifestIsSeen() throws {
        let folder = try ScratchFolder()
        _ = try sample(folder)
        let bytes = try fileBytes(folder.file(CheckpointManifest.fileName))
        for bit in 0..<(bytes.count * 8) {
            var damaged = bytes
            damaged[bit / 8] ^= 1 << (bit % 8)
            try folder.write(CheckpointManifest.fileName, damaged)
            #expect(verify(folder) != nil, "bit \(bit)")
        }
    }

    @Test(arguments: [
        "", "{}", "[]", "{\"version\":2,\"algorithm\":\"xxh64\",\"files\":{}}",
        "{\"version\":1,\"algorithm\":\"md5\",\"files\":{}}", "{\"version\":1,\"algorithm\":\"xxh64\"}",
        "{\"version\":1,\"version\":1,\"algorithm\":\"xxh64\",\"files\":{}}",
        "{\"version\":1,\"algorithm\":\"xxh64\",\"files\":{\"a\":{\"bytes\":-1,\"checksum\":\"0000000000000000\"}}}",
        "{\"version\":1,\"algorithm\":\"xxh64\",\"files\":{\"a\":{\"bytes\":1,\"checksum\":\"0\"}}}",
        "{\"version\":1,\"algorithm\":\"xxh64\",\"files\":{\"a\":{\"bytes\":1,\"checksum\":\"000000000000000A\"}}}",
        "{\"version\":1,\"algorithm\":\"xxh64\",\"files\":{\"a\":{\"bytes\":1}}}",
        "{\"version\":1,\"algorithm\":\"xxh64\",\"files\":{\"../a\":{\"bytes\":1,\"checksum\":\"0000000000000000\"}}}",
    ])
    func brokenManifestIsRefused(_ text: String) throws {
        let folder = try ScratchFolder()
        try folder.write(CheckpointManifest.fileName, text: text)
        #expect(throws: FileError.self) { try CheckpointManifest(folder: folder.path) }
    }

    @Test func manifestListsNoPaths() {
        let digest = FileDigest(count: 0, checksum: 0)
        for name in ["../a", "a/b", "", CheckpointManifest.fileName] {
            #expect(throws: FileError.self) { try CheckpointManifest(files: [name: digest]) }
        }
    }
}
