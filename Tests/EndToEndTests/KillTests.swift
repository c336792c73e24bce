import ApusTestSupport
import Foundation
import Testing

/// A run that is killed at any moment loses the steps since its last checkpoint and nothing else.
@Suite struct KillTests {
    private static let isLong = ProcessInfo.processInfo.environment["APUS_SOAK"] == "1"
    private static let kills = isLong ? 200 : 10

    @Test func `killed again and again, a run ends with the bits of one that was left alone`() throws {
        // Far more than are taken between kills, however slowly this process gets to them.
        let steps = 12 * Self.kills
        let scratch = try TrainScratch(steps: steps)
        let settings = ["output.save_every=1", "training.evaluate_every=0"]
        try scratch.train(out: "whole", set: settings)
        var generator = SeededGenerator(seed: 29)
        var killed = 0
        var halfSaved = 0
        while killed < Self.kills {
            let before = scratch.steps().last ?? 0
            try #require(before < steps, "the run ended after \(killed) kills")
            let command = try ChildProcess.apus(scratch.arguments(before > 0 ? ["--resume"] : [], set: settings))
            let target = before + Int.random(in: 0...2, using: &generator)
            // Every other kill waits for this process to begin a save, and then for some part of it; the rest come at
            // any time, while it starts and resumes too.
            let meetsSave = killed % 2 == 1
            if meetsSave || killed % 4 == 0 { command.wait { scratch.steps().last ?? 0 >= target } }
            if meetsSave { command.wait { !halfWritten(scratch, by: command).isEmpty } }
            usleep(UInt32.random(in: 0...(meetsSave ? 1000 : 40_000), using: &generator))
            command.send(SIGKILL)
            #expect(command.wait() == .signal(SIGKILL), "\(command.errors)")
            killed += 1
            if !halfWritten(scratch, by: command).isEmpty { halfSaved += 1 }
        }
        print("\(halfSaved) of \(killed) kills met a save; step \(scratch.steps().last ?? 0) of \(steps)")
        #expect(halfSaved * 5 >= killed, "only \(halfSaved) of \(killed) kills met a save")
        try scratch.train(scratch.steps().isEmpty ? [] : ["--resume"], set: settings)
        #expect(halfWritten(scratch).isEmpty)
        #expect(scratch.steps() == [steps - 1, steps])
        scratch.expectSameEnd("run", "whole")
        #expect(try scratch.losses() == scratch.losses("whole"))
        #expect(scratch.names("run") == ["checkpoints", "metrics.jsonl", "recipe.yaml", "tensorboard"])
    }

    @Test func `a damaged checkpoint is named and the one before goes on`() throws {
        let scratch = try TrainScratch()
        try scratch.train(out: "whole")
        try scratch.train()
        let file = "run/checkpoints/step-00000008/optimizer.safetensors"
        var content = try #require(scratch.bytes(file))
        content[content.count / 2] ^= 16
        try scratch.write(file, content)
        let command = try scratch.train(["--resume"])
        #expect(
            command.output.contains("a checkpoint is damaged") && command.output.contains(file), "\(command.output)")
        #expect(command.output.contains("steps 7 to 8"), "\(command.output)")
        scratch.expectSameEnd("run", "whole")
    }

    /// Folders of checkpoints that a process, or any, is writing, or left when it died.
    private func halfWritten(_ scratch: TrainScratch, by writer: ChildProcess? = nil) -> [String] {
        let names = scratch.names("run/checkpoints")
        guard let writer else { return names.filter { $0.contains(".tmp-") } }
        return names.filter { $0.hasSuffix(".tmp-\(writer.id)") }
    }
}
