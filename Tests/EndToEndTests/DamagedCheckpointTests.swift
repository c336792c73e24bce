import ApusTestSupport
import Testing

/// Commands that read a run whose newest checkpoint is damaged.
@Suite struct DamagedCheckpointTests {
    private let scratch: TrainScratch
    private var run: String { "\(scratch.path)/run" }

    /// A run with checkpoints after steps 6 and 8, a byte of the newer one's weights changed.
    init() throws {
        scratch = try TrainScratch()
        try scratch.train()
        let file = "run/checkpoints/step-00000008/model.safetensors"
        var content = try #require(scratch.bytes(file))
        content[content.count - 2] ^= 8
        try scratch.write(file, content)
    }

    /// A command that reads the model in `folder`.
    private func arguments(_ verb: String, _ folder: String) -> [String] {
        verb == "generate"
            ? [verb, folder, "--prompt", "swift ", "--max-tokens", "8", "--threads", "1"]
            : [verb, folder, "--data", "\(scratch.path)/text.txt", "--max-tokens", "100", "--threads", "1"]
    }

    @Test(arguments: ["generate", "eval"])
    func `a run means its newest checkpoint that is whole`(_ verb: String) throws {
        let result = try CLI.run(arguments(verb, run))
        #expect(result.status == 0, "\(result.errors)")
        #expect(
            result.errors.contains("warning: a checkpoint is damaged and passed over: '\(run)/checkpoints/step-0000"))
        #expect(result.errors.contains("step-00000008/model.safetensors': checksum is "), "\(result.errors)")
        #expect(result.errors.contains("using '\(run)/checkpoints/step-00000006' instead"), "\(result.errors)")
        let named = try CLI.run(arguments(verb, "\(run)/checkpoints/step-00000006"))
        #expect(named.status == 0 && !named.errors.contains("warning"), "\(named.errors)")
        // The last row of a table tells how fast it was.
        let lines = [result, named].map {
            $0.output.split(separator: "\n").filter { !$0.hasPrefix("tokens per second") }
        }
        #expect(lines[0] == lines[1] && !lines[0].isEmpty)
    }

    @Test(arguments: ["generate", "eval"])
    func `a damaged checkpoint that is named is refused`(_ verb: String) throws {
        let folder = "\(run)/checkpoints/step-00000008"
        try CLI.expectRefusal(arguments(verb, folder), "'\(folder)/model.safetensors': checksum is ")
    }

    @Test func `a run without a whole checkpoint is refused with the newest one's damage`() throws {
        try scratch.write("run/checkpoints/step-00000006/config.json", [123, 125])
        try CLI.expectRefusal(arguments("eval", run), "step-00000008/model.safetensors': checksum is ")
    }

    @Test func `a run that passed over a damaged checkpoint removes it with its next save`() throws {
        try scratch.train(["--resume", "--steps", "7"])
        #expect(scratch.steps() == [6, 7])
    }
}
