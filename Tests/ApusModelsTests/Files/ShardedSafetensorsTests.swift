import ApusTensor
import ApusTestSupport
import Glibc
import Testing

@testable import ApusModels

@Suite struct ShardedSafetensorsTests {
    /// Writes the sample cut at `limit` bytes per file.
    private func write(_ folder: ScratchFolder, limit: Int, base: String = "model") throws -> [String: FileDigest] {
        var writer = try ShardedSafetensorsWriter(
            folder: folder.path, base: base, tensors: sampleSpecs, maximumShardSize: limit)
        for spec in sampleSpecs { try sampleBytes(spec).withUnsafeBytes { try writer.append($0, to: spec.name) } }
        return try writer.finish()
    }

    private func read(_ folder: ScratchFolder) -> FileError? {
        do throws(FileError) {
            _ = try ShardedSafetensors(folder: folder.path)
            return nil
        } catch {
            return error
        }
    }

    @Test(arguments: [(1 << 20, 1), (40, 3), (64, 2), (1, 5)])
    func everyCutReadsBack(_ limit: Int, _ files: Int) throws {
        let folder = try ScratchFolder()
        let digests = try write(folder, limit: limit)
        let all = try ShardedSafetensors(folder: folder.path)
        #expect(all.shards.count == files)
        #expect(all.names == sampleSpecs.map(\.name))
        for spec in sampleSpecs {
            #expect(try all.bytes(spec.name).withUnsafeBytes { Array($0) } == sampleBytes(spec))
            #expect(try all.entry(spec.name).shape == spec.shape)
            #expect(all.contains(spec.name))
        }
        #expect(try folder.names == digests.keys.sorted())
        #expect(digests.count == (files == 1 ? 1 : files + 1))
        for (name, digest) in digests { #expect(try FileDigest(ofFile: folder.file(name)) == digest) }
    }

    @Test func namesAreThoseOfHuggingFace() throws {
        let folder = try ScratchFolder()
        _ = try write(folder, limit: 64)
        _ = try write(folder, limit: 1 << 20, base: "optimizer")
        #expect(
            try folder.names == [
                "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
                "model.safetensors.index.json", "optimizer.safetensors",
            ])
        #expect(ShardPlan.shardName("m", 123_456, of: 123_456) == "m-123456-of-123456.safetensors")
        #expect(try ShardedSafetensors(folder: folder.path, base: "optimizer").shards.count == 1)
    }

    @Test func writerRefusesForeignAndLateTensors() throws {
        let folder = try ScratchFolder()
        for name in ["unknown", "embed.weight"] {
            var writer = try ShardedSafetensorsWriter(folder: folder.path, tensors: sampleSpecs, maximumShardSize: 1)
            try sampleBytes(sampleSpecs[0]).withUnsafeBytes { try writer.append($0, to: "embed.weight") }
            try sampleBytes(sampleSpecs[1]).withUnsafeBytes { try writer.append($0, to: "scalar") }
            do throws(FileError) {
                try writer.append(UnsafeRawBufferPointer(start: nil, count: 0), to: name)
                Issue.record("accepted")
            } catch {
                #expect(error.description.contains("'\(name)'"), "\(error)")
            }
        }
        var writer = try ShardedSafetensorsWriter(folder: folder.path, tensors: sampleSpecs, maximumShardSize: 1)
        do throws(FileError) {
            try writer.append(UnsafeRawBufferPointer(start: nil, count: 0), to: "ids")
            Issue.record("a tensor was left out")
        } catch {
            #expect(error.description.contains("'embed.weight' lacks 60 bytes"), "\(error)")
        }
    }

    @Test func missingShardIsNamed() throws {
        let folder = try ScratchFolder()
        _ = try write(folder, limit: 64)
        unlink(folder.file("model-00002-of-00002.safetensors"))
        #expect(
            read(folder)
                == .missingShard(
                    index: folder.file("model.safetensors.index.json"), shard: "model-00002-of-00002.safetensors",
                    tensor: "empty"))
    }

    @Test func indexAndShardMustAgree() throws {
        let folder = try ScratchFolder()
        let index = folder.file("model.safetensors.index.json")
        try writeSample(to: folder.file("s1"), specs: [sampleSpecs[0]])
        try writeSample(to: folder.file("s2"), specs: [sampleSpecs[1], sampleSpecs[4]])
        func with(_ map: String) throws -> FileError? {
            let text = "{\"metadata\":{\"total_size\":1e3},\"weight_map\":{\(map)}}"
            try folder.write("model.safetensors.index.json", text: text)
            return read(folder)
        }
        let right = "\"embed.weight\":\"s1\",\"scalar\":\"s2\",\"ids\":\"s2\""
        #expect(try with(right) == nil)
        #expect(try with(right + ",\"x\":\"s1\"") == .notInShard(index: index, shard: "s1", tensor: "x"))
        #expect(
            try with("\"embed.weight\":\"s1\",\"scalar\":\"s2\"")
                == .notInIndex(index: index, shard: "s2", tensor: "ids"))
        #expect(
            try with("\"embed.weight\":\"s1\",\"scalar\":\"s1\",\"ids\":\"s2\"")
                == .notInShard(index: index, shard: "s1", tensor: "scalar"))
        for name in ["../s1", "/etc/passwd", "", ".", "..", "a/b", "a\\u0000b"] {
            let error = try with("\"embed.weight\":\"\(name)\"")
            guard case .unsafeFileName(index, _) = error else {
                Issue.record("\(name): \(String(describing: error))")
                continue
            }
        }
    }

    @Test(arguments: [
        "", "[]", "{}", "{\"weight_map\":[]}", "{\"weight_map\":{\"a\":1}}",
        "{\"weight_map\":{\"a\":\"s\",\"a\":\"s\"}}",
        "{\"weight_map\":{},\"weight_map\":{}}", "{\"metadata\":{\"total_size\":01},\"weight_map\":{}}",
        "{\"metadata\":{\"total_size\":1.},\"weight_map\":{}}", "{\"metadata\":nul,\"weight_map\":{}}",
        "{\"metadata\":\(String(repeating: "[", count: 100_000))", "{\"weight_map\":{}} x",
    ])
    func brokenIndexIsRefused(_ text: String) throws {
        let folder = try ScratchFolder()
        try folder.write("model.safetensors.index.json", text: text)
        guard case .malformed = read(folder) else {
            Issue.record("\(String(describing: read(folder)))")
            return
        }
    }

    @Test func folderWithoutModelIsNamed() throws {
        let folder = try ScratchFolder()
        #expect(read(folder) == .notFound(path: folder.file("model.safetensors.index.json")))
        #expect(throws: FileError.self) { try ShardedSafetensors(folder: folder.file("none")) }
    }
}
