import ApusTestSupport
import Glibc
import Testing

/// `apus train` that ends in an error: what was learnt is kept, what is spoiled is not, and it says which.
@Suite struct TrainRescueTests {
    private let scratch: TrainScratch
    /// A rate that spoils the weights within a few steps, each of them finite at first.
    private let wild = ["training.optimizer.learning_rate=1e30", "output.save_every=0", "training.evaluate_every=0"]
    /// A decay that makes weights infinite in one step.
    private let spoiling = [
        "training.optimizer.learning_rate=1e3", "training.optimizer.weight_decay=3e38", "output.save_every=0",
        "training.evaluate_every=0",
    ]

    init() throws { scratch = try TrainScratch() }

    private func fails(_ arguments: [String], set: [String]) throws -> ChildProcess {
        let command = try ChildProcess.apus(scratch.arguments(arguments, set: set))
        #expect(command.wait() == .exit(1), "\(command.errors)")
        return command
    }

    @Test func `weights that are no numbers are not saved over good ones`() throws {
        try scratch.train()
        let file = "run/checkpoints/step-00000008/model.safetensors"
        let good = try #require(scratch.bytes(file))
        let command = try fails(["--resume", "--steps", "9"], set: spoiling)
        for part in ["the weights after step 9 are not finite", "were not saved", "step 8 is saved in"] {
            #expect(command.errors.contains(part), "\(command.errors)")
        }
        #expect(scratch.steps() == [6, 8])
        #expect(scratch.bytes(file) == good)
        try scratch.train(["--resume", "--steps", "10"])
    }

    @Test func `a rate that single precision has not is refused`() throws {
        let command = try fails([], set: ["training.optimizer.learning_rate=1e300"])
        #expect(command.errors.contains("learning_rate is 1e300: a number above 0 and at most 3.4e38"))
        #expect(scratch.names("run").isEmpty)
    }

    @Test func `when a step is not taken, those before it are saved, and so it says`() throws {
        let command = try fails(["--steps", "40"], set: wild)
        let taken = scratch.lines()
        #expect((1..<40).contains(taken))
        #expect(scratch.steps() == [taken], "\(command.errors)")
        for part in [
            "step \(taken + 1): ", "weights and checkpoints are unharmed", "learning_rate",
            "step \(taken) is saved in '",
            "continue with:\n  apus train ", " --resume",
        ] { #expect(command.errors.contains(part), "'\(part)' in: \(command.errors)") }
    }

    @Test func `what is saved after an error displaces no checkpoint`() throws {
        try scratch.train()
        let command = try fails(["--resume", "--steps", "40"], set: wild)
        let steps = scratch.steps()
        #expect(steps.count == 3 && steps.prefix(2) == [6, 8], "\(steps)")
        let last = try #require(steps.last)
        #expect(command.errors.contains("if step \(last) has gone astray already, remove its folder"))
        #expect(command.errors.contains("to continue from '\(scratch.path)/run/checkpoints/step-00000008'"))
    }

    @Test func `where nothing could be saved, nobody is told to resume`() throws {
        let command = try fails(["--steps", "40"], set: spoiling)
        #expect(scratch.steps().isEmpty)
        #expect(command.errors.contains("the weights are spoiled already"), "\(command.errors)")
        #expect(command.errors.contains("no checkpoint was saved"), "\(command.errors)")
        #expect(!command.errors.contains("continue with"), "\(command.errors)")
    }

    @Test(.enabled(if: TinyFileSystem.isAvailable, "needs the right to mount a tmpfs"))
    func `a full disk under the metrics costs no step`() throws {
        let disk = try #require(TinyFileSystem(bytes: 8192))
        let filler = try #require(fopen("\(disk.path)/filler", "w"))
        let page = [UInt8](repeating: 1, count: 4096)
        #expect(fwrite(page, 1, page.count, filler) == page.count && fclose(filler) == 0)
        #expect(mkdir("\(scratch.path)/run", 0o755) == 0)
        #expect(symlink("\(disk.path)/metrics", "\(scratch.path)/run/metrics.jsonl") == 0)
        let command = try fails(["--steps", "40"], set: ["output.save_every=0", "training.evaluate_every=0"])
        #expect(command.errors.contains("metrics.jsonl' cannot be written"), "\(command.errors)")
        let steps = scratch.steps()
        #expect(steps.count == 1 && (1..<40).contains(steps[0]), "\(steps)")
        #expect(command.errors.contains("step \(steps.first ?? 0) is saved in"), "\(command.errors)")
    }
}
