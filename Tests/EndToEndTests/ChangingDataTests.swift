import ApusTestSupport
import Glibc
import Testing

/// Data that somebody changes while a run reads it: the run ends and says which file, or goes on as if nothing were.
@Suite struct ChangingDataTests {
    private let scratch: TrainScratch
    private let settings: [String]
    private var shard: String { "\(scratch.path)/data/training-00000.tokens" }

    init() throws {
        scratch = try TrainScratch(steps: 600)
        let prepared = try CLI.run(
            ["data", "prepare", "\(scratch.path)/text.txt", "--tokenizer", "bytes", "--out", "\(scratch.path)/data"])
        try #require(prepared.status == 0, "\(prepared.errors)")
        settings = [
            "data.path=\(scratch.path)/data", "data.held_out=0", "training.evaluate_every=0", "output.save_every=0",
        ]
    }

    /// Starts a run and lets it take a few steps.
    private func start(set settings: [String]) throws -> ChildProcess {
        let command = try ChildProcess.apus(scratch.arguments(set: settings))
        command.wait { scratch.lines() >= 3 }
        try #require(!command.hasEnded, "\(command.errors)")
        return command
    }

    @Test(arguments: ["cut", "emptied", "longer", "written over"])
    func `a shard that changes ends the run, and the steps before are saved`(_ change: String) throws {
        let command = try start(set: settings)
        switch change {
        case "cut": #expect(truncate(shard, 100) == 0)
        case "emptied": #expect(truncate(shard, 0) == 0)
        case "longer": #expect(truncate(shard, 1 << 20) == 0)
        default: try scratch.write("data/training-00000.tokens", fileBytes(shard).map { $0 ^ 1 })
        }
        #expect(command.wait() == .exit(1), "\(command.errors)")
        for part in ["error: '\(shard)' ", "apus data prepare", "is saved in '", "--resume"] {
            #expect(command.errors.contains(part), "'\(part)' in: \(command.errors)")
        }
        #expect(scratch.steps().count == 1)
    }

    @Test(arguments: ["removed", "replaced", "folder removed"])
    func `a shard that loses its name is read on`(_ change: String) throws {
        try scratch.train(out: "whole", set: settings)
        let command = try start(set: settings)
        switch change {
        case "removed": #expect(unlink(shard) == 0)
        case "replaced":
            try scratch.write("other", Array(repeating: 7, count: 4000))
            #expect(rename("\(scratch.path)/other", shard) == 0)
        default: #expect(rename("\(scratch.path)/data", "\(scratch.path)/elsewhere") == 0)
        }
        #expect(command.wait() == .exit(0), "\(command.errors)")
        scratch.expectSameEnd("run", "whole")
    }

    @Test(arguments: ["cut", "removed"])
    func `text is read once, at the start`(_ change: String) throws {
        let settings = Array(settings.dropFirst(2))
        try scratch.train(out: "whole", set: settings)
        let command = try start(set: settings)
        let text = "\(scratch.path)/text.txt"
        #expect((change == "cut" ? truncate(text, 10) : unlink(text)) == 0)
        #expect(command.wait() == .exit(0), "\(command.errors)")
        scratch.expectSameEnd("run", "whole")
    }
}
