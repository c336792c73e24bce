import ApusTestSupport
import Glibc
import Testing

/// Two runs in one folder: the second is refused while the first lives, and let in as soon as it does not.
@Suite struct SharedFolderTests {
    private let scratch: TrainScratch
    private let settings = ["training.evaluate_every=0", "output.save_every=1"]

    init() throws { scratch = try TrainScratch(steps: 400) }

    @Test func `a second run is refused and harms nothing, and goes on when the first was killed`() throws {
        try scratch.train(out: "whole", set: settings)
        let first = try ChildProcess.apus(scratch.arguments(set: settings))
        // A checkpoint is written while steps go on.
        first.wait { scratch.lines() >= 2 && !scratch.steps().isEmpty }
        for arguments in [[], ["--resume"]] {
            try CLI.expectRefusal(
                scratch.arguments(arguments, set: settings), "'\(scratch.path)/run' is being written by another run",
                "--out")
        }
        try #require(!first.hasEnded)
        first.send(SIGKILL)
        #expect(first.wait() == .signal(SIGKILL))
        try scratch.train(["--resume"], set: settings)
        scratch.expectSameEnd("run", "whole")
        #expect(try scratch.losses() == scratch.losses("whole"))
    }

    /// Neither finds a folder when it looks first.
    @Test func `of two that start together one is refused`() throws {
        for attempt in 0..<3 {
            let out = "run\(attempt)"
            let commands = try (0..<2).map { _ in
                try ChildProcess.apus(scratch.arguments(["--steps", "20"], out: out, set: settings))
            }
            let ends = commands.map { $0.wait() }
            #expect(Set(ends.map { "\($0)" }) == ["\(ChildProcess.End.exit(0))", "\(ChildProcess.End.exit(1))"])
            let errors = commands.map(\.errors).joined()
            #expect(
                errors.contains("is being written by another run") || errors.contains("holds a run already"),
                "\(errors)")
            #expect(try scratch.metrics(out).compactMap { $0["step"] as? Int } == Array(1...20))
        }
    }
}
