import ApusTestSupport
import Foundation
import Testing

/// Programs of several processes, started as a user starts them.
enum Ranks {
    static let mpirun: String? = {
        let folders = ProcessInfo.processInfo.environment["PATH"]?.split(separator: ":").map(String.init) ?? []
        return folders.map { "\($0)/mpirun" }.first { (path: String) in access(path, X_OK) == 0 }
    }()

    /// Why tests are skipped where there is none.
    static let need: Comment = "needs Open MPI's mpirun: run Scripts/setup.sh --test"

    /// Runs `apus` on `count` ranks, as many as there are cores or more.
    static func run(_ count: Int, _ arguments: [String]) throws -> Outcome { Outcome(try start(count, arguments)) }

    /// Starts `apus` on `count` ranks; `others` are the arguments of one more rank.
    static func start(_ count: Int, _ arguments: [String], others: [String]? = nil) throws -> ChildProcess {
        let launcher = try #require(mpirun)
        let options = ["--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", "\(count)"]
        let rest = try others.map { [":", "-n", "1", try builtCommand()] + $0 } ?? []
        return try ChildProcess(launcher, options + [builtCommand()] + arguments + rest)
    }

    /// Runs `apus` alone with these environment variables.
    static func run(_ variables: [String], _ arguments: [String]) throws -> Outcome {
        try Outcome(ChildProcess("/usr/bin/env", variables + [builtCommand()] + arguments))
    }

    struct Outcome {
        let end: ChildProcess.End
        let output: String
        let errors: [String]
        let seconds: Double

        init(_ process: ChildProcess) {
            let start = ContinuousClock.now
            end = process.wait()
            seconds = start.duration(to: .now) / .seconds(1)
            output = process.output
            // Without the launcher's own words.
            errors = process.errors.split(separator: "\n").map(String.init).filter {
                $0.lowercased().hasPrefix("error:")
            }
        }
    }
}
