import Glibc
import Synchronization
public import Testing

/// What a reader made of one damaged file.
public enum MutationVerdict: Sendable {
    /// It was read, and what was read makes sense.
    case accepted
    /// It was refused, with an error of this sort.
    case refused(String)
    /// It was read and makes no sense, or was refused without a reason.
    case wrong(String)
}

/// Many damaged files through one reader, on two threads, within bounds of time and memory.
///
/// To be run in a process of its own: a crash ends it, and so does a hang. Either prints the numbers of the files that
/// were being read, and `APUS_MUTATION=<number>` then reads that one alone.
public struct MutationRun: Sendable {
    /// Files read.
    public private(set) var rounds = 0
    /// Of them, those that were accepted.
    public private(set) var accepted = 0
    /// The others, by the sort of error.
    public private(set) var refusals: [String: Int] = [:]
    /// What made no sense; the first few of each thread.
    public private(set) var wrong: [String] = []
    /// Most processor time that one file took, in seconds.
    public private(set) var slowest = 0.0
    /// Its number.
    public private(set) var slowestRound = 0
    /// Growth of the process' memory over what it had before, at its peak, in bytes.
    public private(set) var memoryGrowth = 0
    /// Time that it took, in seconds.
    public private(set) var seconds = 0.0

    /// Processor time after which a file counts as one that a reader hangs on, in seconds.
    public static let longest = 2.0
    /// Memory that reading may take, in bytes.
    public static let mostMemory = 100 << 20

    /// Damaged files for a reader: a million under `APUS_SOAK=1`, a tenth of that otherwise.
    public static var rounds: Int { getenv("APUS_SOAK").map { String(cString: $0) } == "1" ? 1_000_000 : 100_000 }

    /// Reads `rounds` damaged files with `read`, which also says whether what was read makes sense.
    public init(
        _ mutator: Mutator, rounds: Int = MutationRun.rounds, read: @escaping @Sendable ([UInt8]) -> MutationVerdict
    ) {
        var range = 0..<rounds
        if let only = getenv("APUS_MUTATION").flatMap({ Int(String(cString: $0)) }) { range = only..<only + 1 }
        // Whatever the reader prepares once exists before memory is counted.
        for file in mutator.files { _ = read(file) }
        resetPeak()
        let before = memory("VmRSS:")
        let begin = ContinuousClock.now
        let workers = (0..<2).map { Worker(mutator, range, first: range.lowerBound + $0, read) }
        Worker.watched = workers
        reportCrashes()
        for worker in workers { worker.start() }
        watch(workers)
        for worker in workers { worker.join() }
        for worker in workers { add(worker) }
        memoryGrowth = memory("VmHWM:") - before
        let (whole, part) = (ContinuousClock.now - begin).components
        seconds = Double(whole) + Double(part) * 1e-18
    }

    private mutating func add(_ worker: Worker) {
        rounds += worker.rounds
        accepted += worker.accepted
        refusals.merge(worker.refusals, uniquingKeysWith: +)
        wrong += worker.wrong
        if worker.slowest > slowest { (slowest, slowestRound) = (worker.slowest, worker.slowestRound) }
    }

    /// Waits for the workers, and ends the process when one spends too long on one file.
    private func watch(_ workers: [Worker]) {
        var seen = workers.map { _ in (round: -1, time: 0.0) }
        while let running = workers.first(where: { !$0.isDone }) {
            _ = running
            usleep(20_000)
            for (index, worker) in workers.enumerated() where !worker.isDone {
                let (round, time) = (worker.current.load(ordering: .relaxed), worker.processorTime)
                if round != seen[index].round { seen[index] = (round, time) }
                if time - seen[index].time > MutationRun.longest {
                    Worker.complain("a reader hangs")
                    _exit(3)
                }
            }
        }
    }
}

extension MutationRun {
    /// Expects sense, and time and memory within their bounds.
    ///
    /// Damage that never gets past the first check would test nothing: at least a share of the files has to be
    /// accepted, and a share refused for each of the reasons named.
    public func expectSound(
        accepted share: Double = 0.02, refused sorts: [String], each: Double = 0.001, memory most: Int = 64 << 20,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        report()
        #expect(wrong.isEmpty, "\(wrong.joined(separator: "\n"))", sourceLocation: sourceLocation)
        #expect(slowest < MutationRun.longest, "\(self)", sourceLocation: sourceLocation)
        #expect(memoryGrowth < min(most, MutationRun.mostMemory), "\(self)", sourceLocation: sourceLocation)
        guard rounds > 1 else { return }
        #expect(Double(accepted) > share * Double(rounds), "\(self)", sourceLocation: sourceLocation)
        for sort in sorts {
            #expect(
                Double(refusals[sort, default: 0]) > each * Double(rounds), "\(sort): \(self)",
                sourceLocation: sourceLocation)
        }
        #expect(refusals.keys.allSatisfy(sorts.contains), "\(self)", sourceLocation: sourceLocation)
    }
}

extension MutationRun {
    /// Adds the figures to the file that `APUS_MUTATION_LOG` names, for what a process of its own prints is not seen.
    private func report() {
        guard let path = getenv("APUS_MUTATION_LOG"), let file = fopen(path, "a") else { return }
        fputs("\(self)\n", file)
        fclose(file)
    }
}

extension MutationRun: CustomStringConvertible {
    /// One line with all the figures.
    public var description: String {
        let sorts = refusals.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", ")
        return "\(rounds) files in \(Int(seconds * 10)) tenths of a second: accepted \(accepted), refused: \(sorts); "
            + "slowest \(Int(slowest * 1e6)) us (number \(slowestRound)), memory +\(memoryGrowth >> 10) KiB"
    }
}

/// One thread of a run: every other file.
// Sendable: results are read after the thread has ended; what is read before is atomic.
private final class Worker: @unchecked Sendable {
    nonisolated(unsafe) static var watched: [Worker] = []

    let current = Atomic<Int>(-1)
    private let done = Atomic<Bool>(false)
    private let mutator: Mutator
    private let range: Range<Int>
    private let first: Int
    private let read: @Sendable ([UInt8]) -> MutationVerdict
    private var thread = pthread_t()
    private(set) var rounds = 0
    private(set) var accepted = 0
    private(set) var refusals: [String: Int] = [:]
    private(set) var wrong: [String] = []
    private(set) var slowest = 0.0
    private(set) var slowestRound = 0

    init(
        _ mutator: Mutator, _ range: Range<Int>, first: Int, _ read: @escaping @Sendable ([UInt8]) -> MutationVerdict
    ) {
        self.mutator = mutator
        self.range = range
        self.first = first
        self.read = read
    }

    var isDone: Bool { done.load(ordering: .acquiring) }

    /// Processor time of the thread, which a machine that is busy or a process that is stopped does not lengthen.
    var processorTime: Double {
        var clock = clockid_t()
        guard pthread_getcpuclockid(thread, &clock) == 0 else { return 0 }
        return seconds(of: clock)
    }

    func start() {
        let status = pthread_create(
            &thread, nil,
            { argument in
                guard let argument else { return nil }
                Unmanaged<Worker>.fromOpaque(argument)._withUnsafeGuaranteedRef { $0.work() }
                return nil
            }, Unmanaged.passUnretained(self).toOpaque())
        precondition(status == 0)
    }

    func join() { pthread_join(thread, nil) }

    private func work() {
        var bytes: [UInt8] = []
        var time = seconds(of: CLOCK_THREAD_CPUTIME_ID)
        for round in stride(from: first, to: range.upperBound, by: 2) {
            current.store(round, ordering: .relaxed)
            mutator.damage(round, into: &bytes)
            switch read(bytes) {
            case .accepted: accepted += 1
            case .refused(let sort): refusals[sort, default: 0] += 1
            case .wrong(let what):
                if wrong.count < 5 { wrong.append("file \(round): \(what)") }
            }
            rounds += 1
            let now = seconds(of: CLOCK_THREAD_CPUTIME_ID)
            if now - time > slowest { (slowest, slowestRound) = (now - time, round) }
            time = now
        }
        done.store(true, ordering: .releasing)
    }

    /// Prints what is being read; allocates nothing, for it may be called when anything is broken.
    static func complain(_ what: StaticString) {
        _ = write(STDERR_FILENO, what.utf8Start, what.utf8CodeUnitCount)
        for worker in watched {
            var digits: (UInt64, UInt64, UInt64) = (0, 0, 0)
            withUnsafeMutableBytes(of: &digits) { text in
                var (value, place) = (max(worker.current.load(ordering: .relaxed), 0), text.count)
                repeat {
                    place -= 1
                    text[place] = UInt8(ascii: "0") + UInt8(value % 10)
                    value /= 10
                } while value > 0
                text[place - 1] = UInt8(ascii: " ")
                _ = write(STDERR_FILENO, text.baseAddress.map { $0 + place - 1 }, text.count - place + 1)
            }
        }
        _ = write(STDERR_FILENO, "\n", 1)
    }
}

private func reportCrashes() {
    for number in [SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGABRT] {
        signal(number) { number in
            Worker.complain("a reader crashed; one of these files is at fault:")
            signal(number, SIG_DFL)
            raise(number)
        }
    }
}

private func seconds(of clock: clockid_t) -> Double {
    var time = timespec()
    clock_gettime(clock, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
}

/// A size of this process in bytes, by its name in `/proc/self/status`.
///
/// What `getrusage` tells would not do: a process begins with the peak of the one that started it.
private func memory(_ name: String) -> Int {
    let line = (textFile("/proc/self/status") ?? "").split(separator: "\n").first { $0.hasPrefix(name) } ?? ""
    return (Int(line.filter(\.isNumber)) ?? 0) << 10
}

/// Lets the peak of this process' memory begin anew from what it has now.
private func resetPeak() {
    guard let file = fopen("/proc/self/clear_refs", "w") else { return }
    fputs("5", file)
    fclose(file)
}
