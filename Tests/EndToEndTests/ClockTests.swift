import ApusTestSupport
import Foundation
import Testing

@testable import ApusTraining

/// A wall clock that goes backwards: steps alone give the order of checkpoints, metrics and events.
@Suite struct ClockTests {
    /// Sets the times of a file or folder, in seconds since 1970.
    private func setTime(_ path: String, _ seconds: Int) {
        var times = [timespec(tv_sec: seconds, tv_nsec: 0), timespec(tv_sec: seconds, tv_nsec: 0)]
        #expect(utimensat(AT_FDCWD, path, &times, 0) == 0)
    }

    @Test func `the newest checkpoint is that of the highest step, whatever the times of its files`() throws {
        let scratch = try TrainScratch()
        try scratch.train(["--steps", "12"], out: "whole", set: ["output.keep=3"])
        try scratch.train(set: ["output.keep=3"])
        #expect(scratch.steps() == [4, 6, 8])
        // The later the step, the older the files; the first is from a time to come.
        for (step, time) in [(4, 4_000_000_000), (6, 1_000_000_000), (8, 1)] {
            let folder = "\(scratch.path)/run/checkpoints/step-0000000\(step)"
            for name in folderNames(folder) { setTime("\(folder)/\(name)", time) }
            setTime(folder, time)
        }
        for name in scratch.names("run") { setTime("\(scratch.path)/run/\(name)", 1) }
        let command = try scratch.train(["--resume", "--steps", "12"], set: ["output.keep=3"])
        #expect(command.output.contains("steps 9 to 12"), "\(command.output)")
        #expect(scratch.steps() == [8, 10, 12])
        scratch.expectSameEnd("run", "whole")
        #expect(try scratch.metrics().compactMap { $0["step"] as? Int } == Array(1...12))
        #expect(try scratch.metrics().allSatisfy { ($0["step_seconds"] as? Double ?? -1) > 0 })
    }

    @Test func `a copy of a checkpoint under another name is none`() throws {
        let scratch = try TrainScratch()
        try scratch.train()
        let folder = "\(scratch.path)/run/checkpoints"
        for name in ["step-9", "step-+0000009", "step-00000008.old", "step-9999999999x"] {
            try FileManager.default.copyItem(atPath: "\(folder)/step-00000006", toPath: "\(folder)/\(name)")
        }
        let command = try scratch.train(["--resume", "--steps", "10"])
        #expect(command.output.contains("steps 9 to 10"), "\(command.output)")
        #expect(!command.output.contains("damaged"), "\(command.output)")
        let names = Set(scratch.names("run/checkpoints"))
        #expect(names.isSuperset(of: ["step-00000008", "step-00000010", "step-9", "step-00000008.old"]), "\(names)")
    }

    /// Scalars of a tag, as TensorBoard's server reads them.
    private static let program = """
        import json, sys
        from tensorboard.backend.event_processing import event_accumulator
        events = event_accumulator.EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
        events.Reload()
        print(json.dumps({"points": [[e.step, e.value, e.wall_time] for e in events.Scalars("loss/loss")]}))
        """

    @Test(
        .enabled(
            if: ProcessInfo.processInfo.environment["APUS_PYTHON"] != nil,
            "needs a Python with tensorboard: set APUS_PYTHON"))
    func `tensorboard reads all steps in order, of files whose clock went back`() throws {
        let python = try #require(ProcessInfo.processInfo.environment["APUS_PYTHON"])
        let scratch = try ScratchFolder()
        let folder = scratch.file("tensorboard")
        // An hour back at each reading, across three starts of a run; the second takes step 3 again.
        let clock = BackwardsClock()
        for steps in [1...3, 3...4, 5...6] {
            let file = try EventFile(folder: folder, afterStep: steps.lowerBound - 1, of: 6, now: clock.read)
            for step in steps {
                try file.append(
                    StepMetrics(
                        step: step, loss: Double(10 - step), droppedFraction: 0, gradientNorm: 1, learningRate: 1,
                        tokensPerSecond: 1, mfu: 1, peakBytes: 1, stepSeconds: 1, expertShares: []))
            }
        }
        #expect(folderNames(folder).count == 3)
        let read = try CLI.run(python, ["-c", Self.program, folder])
        #expect(read.status == 0, "\(read.errors)")
        let points = try #require(try read.object()["points"] as? [[Double]])
        #expect(points.map { $0[0] } == [1, 2, 3, 4, 5, 6] && points.map { $0[1] } == [9, 8, 7, 6, 5, 4], "\(points)")
        #expect(zip(points, points.dropFirst()).allSatisfy { $0[2] > $1[2] }, "the clock was read")
    }

    private final class BackwardsClock {
        private var time = 1_700_000_000.0

        func read() -> Double {
            time -= 3600
            return time
        }
    }
}
