public import Glibc
import Testing

/// A program run as a process of its own, what it reads and prints kept in files, so that neither side waits for the
/// other.
public final class ChildProcess {
    /// How a process ended.
    public enum End: Equatable, Sendable {
        /// By itself, with this status.
        case exit(Int32)
        /// By this signal.
        case signal(Int32)
    }

    /// The number the system knows it by.
    public let id: pid_t
    private let scratch: ScratchFolder

    /// Starts the program at `path` with these arguments and this text as its standard input.
    public init(_ path: String, _ arguments: [String], input: String = "") throws {
        scratch = try ScratchFolder()
        try scratch.write("in", text: input)
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, scratch.file("in"), O_RDONLY, 0)
        for (descriptor, name) in [(STDOUT_FILENO, "out"), (STDERR_FILENO, "err")] {
            posix_spawn_file_actions_addopen(&actions, descriptor, scratch.file(name), O_WRONLY | O_CREAT, 0o600)
        }
        // The threads of a test runner may block signals, and a process inherits what is blocked.
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var mask = sigset_t()
        sigemptyset(&mask)
        posix_spawnattr_setsigmask(&attributes, &mask)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
        var words = ([path] + arguments).map { strdup($0) } + [nil]
        defer { for word in words { free(word) } }
        var id: pid_t = 0
        let failure = posix_spawn(&id, path, &actions, &attributes, &words, environ)
        try #require(failure == 0, "'\(path)' cannot be started: \(String(cString: strerror(failure)))")
        self.id = id
    }

    /// Starts the command `apus`.
    public static func apus(_ arguments: [String], input: String = "") throws -> ChildProcess {
        try ChildProcess(builtCommand(), arguments, input: input)
    }

    /// What it has printed on standard output so far.
    public var output: String { textFile(scratch.file("out")) ?? "" }
    /// What it has printed on standard error so far.
    public var errors: String { textFile(scratch.file("err")) ?? "" }

    /// Sends it a signal.
    public func send(_ signal: Int32) { kill(id, signal) }

    /// Whether a signal was sent to it that it has not yet been given.
    public var hasPendingSignal: Bool {
        let masks = (textFile("/proc/\(id)/status") ?? "").split(separator: "\n").filter {
            $0.hasPrefix("SigPnd:") || $0.hasPrefix("ShdPnd:")
        }
        return masks.contains { line in line.drop { $0 != "\t" }.contains { $0 != "\t" && $0 != "0" } }
    }

    /// Whether the process is over; ``wait()`` then returns at once.
    public var hasEnded: Bool {
        var information = siginfo_t()
        let result = waitid(P_PID, id_t(id), &information, WEXITED | WNOHANG | WNOWAIT)
        return result == 0 && information.si_signo != 0
    }

    /// Waits until `condition` holds, or the process is over.
    public func wait(_ condition: () -> Bool) {
        if !wait(upTo: Self.limit, until: { condition() || hasEnded }) { giveUp() }
    }

    /// Waits until it is over. To be called once.
    public func wait() -> End {
        if !wait(upTo: Self.limit, until: { hasEnded }) { giveUp() }
        var status: Int32 = 0
        while waitpid(id, &status, 0) == -1, errno == EINTR {}
        return status & 0x7f == 0 ? .exit(status >> 8 & 0xff) : .signal(status & 0x7f)
    }

    /// Longer than anything that a test starts.
    private static let limit = Duration.seconds(240)

    private func wait(upTo limit: Duration, until condition: () -> Bool) -> Bool {
        let deadline = ContinuousClock.now + limit
        while !condition() {
            guard ContinuousClock.now < deadline else { return false }
            usleep(200)
        }
        return true
    }

    /// Says what it and its children do, and ends them: a program that hangs must not take the other tests' results with it.
    private func giveUp() {
        Issue.record("still running after \(Self.limit):\n\(family.joined(separator: "\n"))\n\(output)\n\(errors)")
        // A launcher ends its ranks when it is asked to, not when it is killed.
        send(SIGTERM)
        if !wait(upTo: .seconds(10), until: { hasEnded }) { send(SIGKILL) }
    }

    /// The process and those that descend from it: number, state, what it waits for in the system, and command line.
    private var family: [String] {
        var members: [pid_t: String] = [:]
        let processes = folderNames("/proc").compactMap { pid_t($0) }.sorted()
        for process in processes {
            // After the name, which is in parentheses: state, parent.
            let words =
                (textFile("/proc/\(process)/stat") ?? "").split(separator: ")").last?.split(separator: " ") ?? []
            guard words.count > 1, process == id || pid_t(words[1]).map({ members[$0] != nil }) == true else {
                continue
            }
            let command = (textFile("/proc/\(process)/cmdline") ?? "").split(separator: "\0").joined(separator: " ")
            members[process] = "\(process) \(words[0]) \(textFile("/proc/\(process)/wchan") ?? "?") \(command)"
        }
        return members.sorted { $0.key < $1.key }.map(\.value)
    }
}
