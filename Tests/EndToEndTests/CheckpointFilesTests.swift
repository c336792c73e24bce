import ApusTestSupport
import Foundation
import Testing

/// Folders of checkpoints that lack a file, have one too many, or an index that leads elsewhere.
@Suite struct CheckpointFilesTests {
    private let scratch: ScratchFolder

    init() throws { scratch = try ScratchFolder() }

    /// A Hugging Face folder whose tensors an index distributes, as `name` in the scratch folder.
    private func indexed(_ name: String, shard: String = "model-00001-of-00001.safetensors") throws -> String {
        let folder = try scratch.copy(folder: goldenFolder("mixtral"), as: name)
        let bytes = try fileBytes("\(folder)/model.safetensors")
        let length = bytes.prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) }
        let header = try #require(
            try JSONSerialization.jsonObject(with: Data(bytes[8..<8 + length])) as? [String: Any])
        let map = header.keys.filter { $0 != "__metadata__" }.map { "\"\($0)\": \"\(shard)\"" }.joined(separator: ", ")
        try scratch.write("\(name)/model.safetensors.index.json", text: "{\"weight_map\": {\(map)}}")
        try FileManager.default.moveItem(
            atPath: "\(folder)/model.safetensors", toPath: "\(folder)/model-00001-of-00001.safetensors")
        return folder
    }

    private func commands(_ folder: String) -> [[String]] {
        [["inspect", folder], ["convert", "import", folder, "--out", scratch.file("out")]]
    }

    @Test func `a shard that is missing is named`() throws {
        let folder = try indexed("missing")
        #expect(try CLI.run(commands(folder)[0]).status == 0)
        unlink("\(folder)/model-00001-of-00001.safetensors")
        for command in commands(folder) { try CLI.expectRefusal(command, "model-00001-of-00001.safetensors", folder) }
        #expect(access(scratch.file("out"), F_OK) != 0)
    }

    @Test(arguments: ["../secret/model-00001-of-00001.safetensors", "/etc/hosts", "..", "a/b", ""])
    func `an index that leads out of its folder is refused`(_ shard: String) throws {
        _ = try indexed("secret")
        let folder = try indexed("model", shard: shard)
        for command in commands(folder) { try CLI.expectRefusal(command, "model.safetensors.index.json") }
    }

    @Test func `a single file beside an index is refused, for either may be the model`() throws {
        let folder = try indexed("both")
        try scratch.write("both/model.safetensors", fileBytes(goldenFolder("mixtral") + "/model.safetensors"))
        for command in commands(folder) {
            try CLI.expectRefusal(
                command, "model.safetensors.index.json", "'model.safetensors' lies beside it", "remove")
        }
    }

    @Test func `a file too many in a checkpoint is left alone; one too few sends a run to the checkpoint before`()
        throws
    {
        let train = try TrainScratch()
        try train.train(out: "whole")
        try train.train()
        try train.write("run/checkpoints/step-00000008/notes.txt", Array("mine".utf8))
        try train.train(["--resume", "--steps", "8"])
        unlink("\(train.path)/run/checkpoints/step-00000008/optimizer.safetensors")
        let command = try train.train(["--resume"])
        #expect(command.output.contains("optimizer.safetensors") && command.output.contains("steps 7 to 8"))
        train.expectSameEnd("run", "whole")
    }
}
