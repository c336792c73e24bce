import ApusCollectives
import ApusTensor
import Glibc

// What ranks tell each other about files, and how they come to one outcome.

extension Collective {
    /// `text` of every rank, in the order of ranks. Blocks.
    ///
    /// - Throws: ``CollectiveError``.
    func collected(_ text: String) throws -> [String] {
        guard size > 1 else { return [text] }
        let bytes = Array(text.utf8)
        let most = try largest([bytes.count])[0]
        guard most > 0 else { return members.map { _ in "" } }
        // The length, then eight bytes to a number.
        var numbers = [bytes.count]
        numbers += stride(from: 0, to: most, by: 8).map { start in
            (start..<min(start + 8, max(bytes.count, start))).reduce(0) { $0 | Int(bytes[$1]) << (8 * ($1 - start)) }
        }
        return try collected(numbers).map { numbers in
            String(
                decoding: (0..<numbers[0]).map { UInt8(truncatingIfNeeded: numbers[1 + $0 / 8] >> (8 * ($0 % 8))) },
                as: UTF8.self)
        }
    }

    /// Runs `body` on every rank and, when all have, returns what it gave here; if any failed, all throw.
    ///
    /// What ends the world is thrown at once: nobody can be asked any more.
    ///
    /// - Throws: ``RankFailures``, or this rank's own error where all ranks have the same one; ``CollectiveError``.
    func agree<Value>(on task: String, _ body: () throws -> Value) throws -> Value {
        let outcome = Result { try body() }
        if case .failure(let error as CollectiveError) = outcome { throw error }
        guard size > 1 else { return try outcome.get() }
        var reason = ""
        if case .failure(let error) = outcome { reason = "\(error)" }
        let failures = try collected(reason).enumerated().filter { !$1.isEmpty }
            .map { RankFailures.Failure(rank: members[$0], reason: $1) }
        if failures.isEmpty { return try outcome.get() }
        if failures.count == size, Set(failures.map(\.reason)).count == 1 { _ = try outcome.get() }
        throw RankFailures(task: task, failures: failures)
    }

    /// Waits until every rank's own event has happened.
    ///
    /// The ranks tell each other again and again, so that one whose storage is slow holds up no operation until its
    /// time-out.
    ///
    /// - Throws: ``CollectiveError``.
    func waitForAll(_ event: ApusTensor.Event) throws {
        var pause: UInt32 = 1000
        while try largest([event.isComplete ? 0 : 1])[0] > 0 {
            usleep(pause)
            pause = min(pause * 2, 100_000)
        }
    }
}
