import ApusTestSupport
import Foundation
import Testing

/// A run of several ranks, one of which is killed at any moment, loses the steps since its last checkpoint and nothing
/// else.
@Suite(.serialized) struct RankKillTests {
    private static let kills = ProcessInfo.processInfo.environment["APUS_SOAK"] == "1" ? 20 : 4

    /// How the ranks share the work, and how often they save.
    private static let settings = [
        "output.save_every=1", "training.evaluate_every=0", "training.micro_batch=4", "layout.expert=2",
        "layout.zero=1", "layout.timeout=30",
    ]

    @Test(.enabled(if: Ranks.mpirun != nil, Ranks.need))
    func `with one rank killed again and again, a run ends with the bits of one that was left alone`() throws {
        let steps = 12 * Self.kills
        let scratch = try TrainScratch(steps: steps)
        let whole = try Ranks.start(2, scratch.arguments(out: "whole", set: Self.settings))
        #expect(whole.wait() == .exit(0), "\(whole.errors)")
        var generator = SeededGenerator(seed: 31)
        for kill in 0..<Self.kills {
            let before = scratch.steps().last ?? 0
            try #require(before < steps, "the run ended after \(kill) kills")
            let command = try Ranks.start(
                2, scratch.arguments(before > 0 ? ["--resume"] : [], set: Self.settings))
            let target = before + Int.random(in: 0...2, using: &generator)
            // Every other kill waits for a save to begin and then for some part of it; the rest come at any time.
            command.wait { Ranks.processes(of: command).count == 2 }
            if kill % 4 != 2 { command.wait { scratch.steps().last ?? 0 >= target } }
            if kill % 2 == 1 { command.wait { !halfWritten(scratch).isEmpty } }
            usleep(UInt32.random(in: 0...(kill % 2 == 1 ? 2000 : 60_000), using: &generator))
            let victim = try #require(Ranks.processes(of: command).randomElement(using: &generator))
            Glibc.kill(victim, SIGKILL)
            #expect(command.wait() != .exit(0), "\(command.output)")
        }
        let resumes = scratch.steps().isEmpty ? [] : ["--resume"]
        let rest = try Ranks.start(2, scratch.arguments(resumes, set: Self.settings))
        #expect(rest.wait() == .exit(0), "\(rest.errors)")
        #expect(halfWritten(scratch).isEmpty)
        #expect(scratch.steps() == [steps - 1, steps])
        #expect(try scratch.losses() == scratch.losses("whole"))
        let name = try #require(scratch.names("run/checkpoints").last)
        let files = scratch.names("whole/checkpoints/\(name)")
        #expect(scratch.names("run/checkpoints/\(name)") == files && files.count > 5)
        for file in files {
            let bytes = ["run", "whole"].map { scratch.bytes("\($0)/checkpoints/\(name)/\(file)") }
            #expect(bytes[0] != nil && bytes[0] == bytes[1], "\(file)")
        }
    }

    /// Folders of checkpoints that are being written, or were when a rank died.
    private func halfWritten(_ scratch: TrainScratch) -> [String] {
        scratch.names("run/checkpoints").filter { $0.contains(".tmp-") }
    }
}

extension Ranks {
    /// The ranks that a launcher has started and that run the command by now.
    fileprivate static func processes(of launcher: ChildProcess) -> [pid_t] {
        folderNames("/proc").compactMap { pid_t($0) }.filter { id in
            // pid (name) state parent ...
            let fields = (textFile("/proc/\(id)/stat") ?? "").split(separator: " ")
            guard fields.count > 3 else { return false }
            return fields[1] == "(apus)" && pid_t(fields[3]) == launcher.id
        }
    }
}
