import ApusTestSupport
import Foundation
import Testing

/// The command `apus` as a process of its own, what it prints kept in files.
final class TrainCommand {
    /// The binary: named by `APUS_BINARY`, or beside the tests, where one build puts both.
    private static func binary() throws -> String {
        if let named = ProcessInfo.processInfo.environment["APUS_BINARY"] { return named }
        let tests = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
        return (tests as NSString).deletingLastPathComponent + "/apus"
    }

    /// How a process ended.
    enum End: Equatable {
        case exit(Int32)
        case signal(Int32)
    }

    let process: pid_t
    private let prefix: String

    /// Starts `apus` with these arguments; `scratch` keeps its output.
    init(_ arguments: [String], in scratch: TrainScratch) throws {
        let binary = try Self.binary()
        let prefix = "\(scratch.path)/output-\(UUID().uuidString)"
        self.prefix = prefix
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        for (descriptor, name) in [(STDOUT_FILENO, "out"), (STDERR_FILENO, "err")] {
            posix_spawn_file_actions_addopen(&actions, descriptor, "\(prefix).\(name)", O_WRONLY | O_CREAT, 0o600)
        }
        // The threads of a test runner may block signals, and a process inherits what is blocked.
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var mask = sigset_t()
        sigemptyset(&mask)
        posix_spawnattr_setsigmask(&attributes, &mask)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
        var words = ([binary] + arguments).map { strdup($0) } + [nil]
        defer { for word in words { free(word) } }
        var process: pid_t = 0
        try #require(
            posix_spawn(&process, binary, &actions, &attributes, &words, environ) == 0,
            "no program at '\(binary)': build with 'make build', or name it with APUS_BINARY")
        self.process = process
    }

    var output: String { textFile("\(prefix).out") ?? "" }
    var errors: String { textFile("\(prefix).err") ?? "" }

    func send(_ signal: Int32) { kill(process, signal) }

    /// Whether the process is over; ``wait()`` then returns at once.
    var hasEnded: Bool {
        var information = siginfo_t()
        let result = waitid(P_PID, id_t(process), &information, WEXITED | WNOHANG | WNOWAIT)
        return result == 0 && information.si_signo != 0
    }

    /// Waits until `condition` holds, or the process is over.
    func wait(_ condition: () -> Bool) {
        while !condition(), !hasEnded { usleep(100) }
    }

    func wait() -> End {
        var status: Int32 = 0
        while waitpid(process, &status, 0) == -1, errno == EINTR {}
        return status & 0x7f == 0 ? .exit(status >> 8 & 0xff) : .signal(status & 0x7f)
    }
}

/// A folder with a recipe of a tiny model and its text, removed at the end of its life.
final class TrainScratch {
    let path: String

    init(steps: Int = 8) throws {
        var template = Array("/tmp/apus-train-XXXXXX".utf8CString)
        path = String(cString: try #require(mkdtemp(&template)))
        var generator = SeededGenerator(seed: 17)
        let words = ["swift", "martin", "expert", "router", "token", "layer", "wing"]
        let text = (0..<800).map { _ in words[Int.random(in: 0..<words.count, using: &generator)] }
        try write("text.txt", Array(text.joined(separator: " ").utf8))
        try write(
            "tiny.yaml",
            Array(
                """
                seed: 3
                model:
                  layers: 2
                  width: 32
                  heads: 2
                  experts:
                    count: 4
                    choices: 2
                    width: 24
                    router: {jitter: 0.02}
                    policy: {capacity: 1.0, order: random}
                    losses: {balance: 0.01, z: 0.001}
                data:
                  path: \(path)/text.txt
                  sequence_length: 32
                  held_out: 0.1
                training:
                  steps: \(steps)
                  batch: 4
                  micro_batch: 2
                  precision: bf16
                  threads: 1
                  evaluate_every: 4
                  evaluate_batches: 1
                  optimizer: {learning_rate: 0.01}
                output:
                  save_every: 2
                  log_every: 2
                """.utf8))
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func write(_ name: String, _ bytes: [UInt8]) throws {
        try Data(bytes).write(to: URL(fileURLWithPath: "\(path)/\(name)"))
    }

    /// `train` with the recipe, below this folder.
    func arguments(_ more: [String] = [], out: String = "run", set: [String] = []) -> [String] {
        ["train", "\(path)/tiny.yaml", "--out", "\(path)/\(out)"] + more + set.flatMap { ["--set", $0] }
    }

    /// Trains to the end and expects it to go well.
    @discardableResult
    func train(
        _ more: [String] = [], out: String = "run", set: [String] = [],
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws -> TrainCommand {
        let command = try TrainCommand(arguments(more, out: out, set: set), in: self)
        #expect(command.wait() == .exit(0), "\(command.errors)", sourceLocation: sourceLocation)
        return command
    }

    func bytes(_ name: String) -> [UInt8]? { FileManager.default.contents(atPath: "\(path)/\(name)").map { Array($0) } }

    func names(_ folder: String) -> [String] { folderNames("\(path)/\(folder)") }

    /// How many lines a run's metrics have so far.
    func lines(_ out: String = "run") -> Int { bytes("\(out)/metrics.jsonl")?.count { $0 == 0x0A } ?? 0 }

    /// The steps of the checkpoints of a run.
    func steps(_ out: String = "run") -> [Int] { names("\(out)/checkpoints").compactMap { Int($0.dropFirst(5)) } }

    /// The lines of a run's metrics as JSON objects.
    func metrics(_ out: String = "run") throws -> [[String: Any]] {
        let text = try #require(textFile("\(path)/\(out)/metrics.jsonl"))
        return try text.split(separator: "\n").map { line in
            try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any], "\(line)")
        }
    }

    /// The losses of a run, a step each.
    func losses(_ out: String = "run") throws -> [Double] {
        try metrics(out).map { try #require($0["loss"] as? Double) }
    }

    /// Expects the newest checkpoints of two runs to be the same step, bit by bit.
    func expectSameEnd(_ left: String, _ right: String, sourceLocation: SourceLocation = #_sourceLocation) {
        let folders = [left, right].map { "\($0)/checkpoints/\(names("\($0)/checkpoints").last ?? "none")" }
        #expect(folders[0].suffix(13) == folders[1].suffix(13), sourceLocation: sourceLocation)
        for file in ["model.safetensors", "optimizer.safetensors", "state.txt"] {
            let (one, other) = (bytes("\(folders[0])/\(file)"), bytes("\(folders[1])/\(file)"))
            #expect(one != nil && one == other, "\(file)", sourceLocation: sourceLocation)
        }
    }
}
