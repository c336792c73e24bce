import ApusTensor
import Testing

@testable import ApusCollectives

/// What ranks tell the watchdog, and what it concludes.
struct WatchTests {
    private static let start = ContinuousClock.now

    private func call(
        _ rank: Int, _ sequence: Int, _ kind: OperationSignature.Kind = .barrier, on name: String = "world",
        pair: Channel.Pair? = nil, after time: Duration = .zero
    ) -> CollectiveCall {
        CollectiveCall(
            rank: rank, channel: Channel(communicator: name, pair: pair), sequence: sequence,
            operation: OperationSignature(kind: kind), layer: 3, time: WatchTests.start + time)
    }

    private func judge(_ size: Int = 3) -> WatchJudge {
        WatchJudge(size: size, silence: .seconds(5), now: WatchTests.start)
    }

    private func at(_ seconds: Double) -> ContinuousClock.Instant { WatchTests.start + .seconds(seconds) }

    @Test func `frames arrive as they were sent, in any pieces`() throws {
        var operation = OperationSignature(kind: .allToAllUneven, label: "rows")
        operation.reduction = .max
        operation.dtype = .bf16
        operation.elements = 12
        operation.root = 2
        let full = CollectiveCall(
            rank: 1, channel: Channel(communicator: "expert.0/tensor.1", pair: .init(source: 1, target: 0)),
            sequence: 7, operation: operation, layer: 3, time: WatchTests.start)
        let state = RankState(
            lastCall: full, waiting: [full, call(1, 2)], reached: [full.channel: 7, call(1, 2).channel: 2],
            recent: [call(1, 2, .split)],
            overdue: .init(call: full, timeout: .seconds(9), members: [0, 1, 5]), completed: 12,
            waited: .milliseconds(5))
        let lost = MissingRank(rank: 2, lastCall: nil, condition: .silent(.seconds(4)))
        let frames: [WatchFrame] = [
            .hello(token: .max - 5, rank: 3), .state(state), .state(RankState()), .alive(nil), .alive(full), .leaving,
            .failure(.timeout(full, after: .seconds(3), missing: [lost, MissingRank(rank: 0, lastCall: full)])),
            .verdict(.mismatch(full, call(0, 7), detail: "rows")),
            .verdict(.lost([lost, .init(rank: 1, lastCall: full, condition: .ended)], waiting: call(0, 1))),
            .verdict(.aborted(communicator: "world", reason: "enough — für heute")),
        ]
        let now = WatchTests.start + .seconds(1)
        let bytes = frames.flatMap { $0.bytes(at: now) }
        for length in [1, 7, 4096] {
            var buffer: [UInt8] = []
            var arrived: [WatchFrame] = []
            for begin in stride(from: 0, to: bytes.count, by: length) {
                buffer += bytes[begin..<min(begin + length, bytes.count)]
                while let frame = try WatchFrame.take(from: &buffer, at: now) { arrived.append(frame) }
            }
            #expect(arrived == frames)
        }
    }

    @Test func `bytes that are no frame are refused, whatever they are`() throws {
        let frame = WatchFrame.verdict(.mismatch(call(0, 1), call(1, 1, .split), detail: "x")).bytes(at: .now)
        var refused = 0
        for index in frame.indices.dropFirst(4) {
            for value in [0, 1, 0x7F, 0xFF] as [UInt8] {
                var bytes = frame
                bytes[index] = value
                do throws(FrameError) {
                    _ = try WatchFrame.take(from: &bytes, at: .now)
                } catch {
                    refused += 1
                }
            }
        }
        #expect(refused > 100)
        var endless: [UInt8] = [0xFF, 0xFF, 0xFF, 0x7F, 0]
        #expect(throws: FrameError.self) { try WatchFrame.take(from: &endless, at: .now) }
    }

    @Test func `a rank whose connection closes is lost, one that has left is not`() {
        var judge = judge()
        judge.note(RankState(lastCall: call(2, 4), waiting: [call(2, 4)]), of: 2, at: at(1))
        judge.noteLeaving(of: 1)
        judge.noteEnd(of: 1)
        #expect(judge.verdict(at: at(2)) == nil)
        judge.note(RankState(lastCall: call(0, 5), waiting: [call(0, 5)]), of: 0, at: at(2))
        judge.noteEnd(of: 2)
        #expect(
            judge.verdict(at: at(2))
                == .lost([MissingRank(rank: 2, lastCall: call(2, 4), condition: .ended)], waiting: call(0, 5)))
    }

    @Test func `a rank that gives no sign of life is lost, unless the watch itself was held up`() throws {
        var judge = judge()
        for rank in 0..<2 { judge.note(RankState(), of: rank, at: at(4)) }
        #expect(judge.verdict(at: at(4.9)) == nil)
        guard case .lost(let ranks, nil)? = judge.verdict(at: at(5.5)) else {
            Issue.record("not lost")
            return
        }
        #expect(ranks.map(\.rank) == [2])
        #expect(ranks[0].condition == .silent(.seconds(5.5)))
        judge.forgive(at: at(5.5))
        #expect(judge.verdict(at: at(10)) == nil)
    }

    @Test func `a late call names who has not come, after all have been heard`() {
        var judge = judge(4)
        let late = call(1, 6, .allReduce, on: "data.0")
        let overdue = RankState.Overdue(call: late, timeout: .seconds(2), members: [0, 1, 3])
        judge.note(RankState(reached: [late.channel: 6], overdue: overdue), of: 1, at: at(2.1))
        #expect(judge.verdict(at: at(2.2)) == nil, "rank 3 may have come meanwhile")
        judge.note(RankState(reached: [late.channel: 6]), of: 0, at: at(2.3))
        judge.note(RankState(reached: [:]), of: 2, at: at(2.3))
        judge.note(RankState(lastCall: call(3, 5), reached: [late.channel: 5]), of: 3, at: at(2.3))
        // Word of it comes again, as it does.
        judge.note(RankState(reached: [late.channel: 6], overdue: overdue), of: 1, at: at(2.4))
        #expect(
            judge.verdict(at: at(2.4))
                == .timeout(
                    late, after: .seconds(2), missing: [MissingRank(rank: 3, lastCall: call(3, 5))]))
    }

    @Test func `a rank that is not heard does not put the verdict off for long`() {
        var judge = judge()
        let late = call(1, 0)
        judge.note(
            RankState(
                reached: [late.channel: 0], overdue: .init(call: late, timeout: .seconds(2), members: [0, 1, 2])),
            of: 1, at: at(2.1))
        judge.note(RankState(reached: [late.channel: 0]), of: 0, at: at(2.2))
        #expect(judge.verdict(at: at(2.3)) == nil)
        #expect(
            judge.verdict(at: at(3.2))
                == .timeout(late, after: .seconds(2), missing: [MissingRank(rank: 2, lastCall: nil)]))
    }

    @Test func `different calls under one number are found by the first of them`() {
        var judge = judge()
        judge.note(RankState(recent: [call(0, 3), call(0, 4, .allReduce), call(0, 5)]), of: 0, at: at(1))
        judge.note(RankState(recent: [call(2, 4, .allGather, on: "other"), call(2, 3)]), of: 2, at: at(1))
        #expect(judge.verdict(at: at(1)) == nil)
        judge.note(RankState(recent: [call(1, 4, .broadcast), call(1, 5, .split)]), of: 1, at: at(1))
        #expect(judge.verdict(at: at(1)) == .mismatch(call(0, 4, .allReduce), call(1, 4, .broadcast), detail: nil))
    }

    @Test func `sending and receiving agree`() {
        var judge = judge()
        let pair = Channel.Pair(source: 0, target: 1)
        judge.note(RankState(recent: [call(0, 0, .send, pair: pair)]), of: 0, at: at(1))
        judge.note(RankState(recent: [call(1, 0, .receive, pair: pair)]), of: 1, at: at(1))
        #expect(judge.verdict(at: at(1)) == nil)
    }

    @Test func `the first failure that is told is the verdict`() {
        var judge = judge()
        judge.note(.aborted(communicator: "world", reason: "first"))
        judge.note(.aborted(communicator: "world", reason: "second"))
        judge.noteEnd(of: 1)
        #expect(judge.verdict(at: at(1)) == .aborted(communicator: "world", reason: "first"))
    }

    @Test func `the slowest rank is the one that waits least`() throws {
        var judge = judge()
        for second in 1...20 {
            for rank in 0..<3 {
                // Ten calls a second, in which the others wait 30 ms and rank 1 waits 2 ms.
                let waited = Duration.milliseconds((rank == 1 ? 2 : 30) * 10 * second)
                judge.note(RankState(completed: 10 * second, waited: waited), of: rank, at: at(Double(second)))
            }
        }
        let report = try #require(judge.straggler)
        #expect(report.rank == 1)
        #expect(report.lag == .milliseconds(28))
        #expect(abs(report.share - 0.28) < 0.15)
        #expect(report.since > .seconds(14))
        #expect(report.description.hasPrefix("rank 1 is the slowest: the others wait 28.0 ms longer in each call"))
        // Once all wait alike, nobody is called slow.
        for second in 21...26 {
            for rank in 0..<3 {
                let sums = (rank == 1 ? 400 : 6000) + 100 * (second - 20)
                judge.note(
                    RankState(completed: 10 * second, waited: .milliseconds(sums)), of: rank, at: at(Double(second)))
            }
        }
        #expect(judge.straggler == nil)
    }

    @Test func `a log tells what is waited in, what is late, and what came before a long wait`() throws {
        var log = CallLog()
        nonisolated(unsafe) var failures = 0
        let first = try log.note(call(0, 0), timeout: .seconds(60), members: [0, 1]) { _ in }
        let second = try log.note(call(0, 1), timeout: .seconds(2), members: [0, 1]) { _ in failures += 1 }
        let completed = [log.complete(first), log.complete(first)]
        #expect(completed == [true, false])
        var summary = log.summary(at: at(0.1))
        #expect(summary.waiting == [call(0, 1)] && summary.recent.isEmpty && summary.overdue == nil)
        #expect(summary.completed == 1 && summary.reached == [call(0, 1).channel: 1])
        summary = log.summary(at: at(1))
        #expect(summary.recent == [call(0, 0), call(0, 1)])
        summary = log.summary(at: at(2.5))
        #expect(summary.overdue?.call == call(0, 1))
        let reason = CollectiveError.aborted(communicator: "world", reason: "enough")
        for fail in log.end(reason) { fail(reason) }
        let isKnown = log.complete(second)
        #expect(failures == 1 && !isKnown && log.failure == reason)
        // Whatever ends it later, and whoever calls: the world has ended for its first reason.
        let left = log.end(.aborted(communicator: "data.0", reason: "later"))
        #expect(left.isEmpty && log.failure == reason)
        #expect(throws: CollectiveError.aborted(communicator: "data.0", reason: "enough")) {
            _ = try log.note(call(0, 2, on: "data.0"), timeout: .seconds(2), members: [0, 1]) { _ in }
        }
    }

    @Test func `a call that is queued for a device waits, and is late, from when the device comes to it`() throws {
        var log = CallLog()
        let names = ["first", "second"]
        let calls = try names.map { name in
            try log.note(call(0, 0, on: name), timeout: .seconds(2), members: [0, 1], isQueued: true) { _ in }
        }
        var summary = log.summary(at: at(100))
        #expect(summary.waiting.isEmpty && summary.overdue == nil && summary.reached.isEmpty && summary.lastCall == nil)
        log.begin(calls[0], at: at(100))
        log.begin(calls[0], at: at(200))
        summary = log.summary(at: at(101))
        #expect(summary.waiting == [call(0, 0, on: "first", after: .seconds(100))] && summary.overdue == nil)
        #expect(summary.reached == [call(0, 0, on: "first").channel: 0])
        summary = log.summary(at: at(102.5))
        #expect(summary.overdue?.call == call(0, 0, on: "first", after: .seconds(100)))
        // One that nobody has seen begin is one that this rank has come to all the same.
        let ended = calls.map { log.complete($0, isCounted: false) }
        summary = log.summary(at: at(300))
        #expect(ended == [true, true] && summary.waiting.isEmpty && summary.overdue == nil)
        #expect(Set(summary.reached.keys.map(\.communicator)) == Set(names))
    }

    @Test func `many calls are held against another rank's at once`() {
        var judge = judge()
        // 25,600 calls: each against each would take minutes.
        let names = (0..<400).map { "expert.\($0)" }
        let recent = { (rank: Int) in names.flatMap { name in (0..<64).map { call(rank, $0, on: name) } } }
        let (first, second) = (recent(0), recent(1))
        let begin = ContinuousClock.now
        judge.note(RankState(recent: first), of: 0, at: at(1))
        judge.note(RankState(recent: second), of: 1, at: at(1))
        #expect(begin.duration(to: .now) < .seconds(5))
        #expect(judge.verdict(at: at(1)) == nil)
    }
}
