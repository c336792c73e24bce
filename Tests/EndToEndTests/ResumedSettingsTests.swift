import ApusTestSupport
import Testing

/// What a run may change when it goes on: what a warning advises must be possible.
@Suite struct ResumedSettingsTests {
    @Test func `how routers learn may change, and each change is told`() throws {
        let scratch = try TrainScratch()
        try scratch.train()
        let settings = [
            "model.experts.losses.balance=0.05", "model.experts.losses.z=0", "model.experts.router.jitter=0",
            "model.experts.router.gumbel=true",
        ]
        let command = try scratch.train(["--resume", "--steps", "10"], set: settings)
        let told = command.output.split(separator: "\n").filter { $0.hasPrefix("continuing with ") }
        let expected = [
            "losses.balance 0.05, was 0.01", "losses.z 0.0, was 0.001", "router.jitter 0.0, was 0.02",
            "router.gumbel true, was false",
        ]
        #expect(told == expected.map { "continuing with model.experts.\($0)" }, "\(command.output)")
        #expect(scratch.steps() == [8, 10])
        let again = try scratch.train(["--resume", "--steps", "12"], set: settings)
        #expect(!again.output.contains("continuing with"))
    }

    @Test func `on the CPU a run has the same bits whatever it says of determinism`() throws {
        let scratch = try TrainScratch()
        try scratch.train(out: "left", set: ["training.deterministic=true"])
        try scratch.train(out: "right", set: ["training.deterministic=false"])
        scratch.expectSameEnd("left", "right")
    }
}
