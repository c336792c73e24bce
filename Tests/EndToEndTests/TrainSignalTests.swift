import ApusTestSupport
import Glibc
import Testing

/// `apus train` when its terminal, or the reader of its output, goes away.
@Suite struct TrainSignalTests {
    private let scratch: TrainScratch

    init() throws { scratch = try TrainScratch() }

    @Test func `a reader that has seen enough does not end the run`() throws {
        let words = scratch.arguments(["--steps", "60"], set: ["output.log_every=1", "output.save_every=0"])
        let command = ([try builtCommand()] + words).map { "'\($0)'" }.joined(separator: " ")
        let result = try CLI.run("/bin/sh", ["-c", "\(command) | head -3"])
        #expect(result.output.split(separator: "\n").count == 3)
        #expect(scratch.lines() == 60, "\(result.errors)")
        #expect(scratch.steps() == [60])
    }

    @Test(arguments: [1, 2])
    func `a terminal that closes saves, however often it says so`(_ count: Int) throws {
        let command = try ChildProcess.apus(scratch.arguments(["--steps", "400"], set: ["output.save_every=0"]))
        command.wait { scratch.lines() >= 3 }
        for _ in 0..<count {
            command.send(SIGHUP)
            // Until the handler has run: two signals of a kind that wait together are one.
            command.wait { !command.hasPendingSignal }
        }
        #expect(command.wait() == .exit(0), "\(command.errors)")
        let steps = scratch.steps()
        #expect(steps.count == 1 && (3..<400).contains(steps[0]), "\(steps)")
        #expect(command.output.contains("stopped after step \(steps.first ?? 0), saved in "))
    }

    @Test func `who ignores the terminal's end goes on`() throws {
        let words = ([try builtCommand()] + scratch.arguments(["--steps", "60"])).map { "'\($0)'" }
        let command = try ChildProcess("/bin/sh", ["-c", "trap '' HUP; exec " + words.joined(separator: " ")])
        command.wait { scratch.lines() >= 3 }
        command.send(SIGHUP)
        #expect(command.wait() == .exit(0), "\(command.errors)")
        #expect(scratch.steps().last == 60 && !command.output.contains("stopped after"))
    }
}
