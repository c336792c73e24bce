import ApusCollectives
import ApusModels
import ApusTensor
import Synchronization

/// A checkpoint on its way to storage, seen from one rank.
///
/// What is saved was copied, so that training goes on while a thread writes. The checkpoint appears when every rank has
/// written and all come to ``finish(waitsForRemoval:)``; a value that is dropped before leaves nothing behind.
public final class BackgroundSave {
    /// The step that is saved.
    public let step: Int
    /// Bytes of the copy that this rank writes from; 0 where there was no memory for one and all is written already.
    public let copiedBytes: Int
    /// Seconds for which training stood still on this rank.
    public let stall: Double
    private let folder: CheckpointFolder
    private let world: any Collective
    private let staging: StagingFolder?
    private let written: ApusTensor.Event
    private let digests: WrittenFiles
    private let cleanup: Cleanup
    private let old: OldCheckpoints
    private var isFinished = false

    /// Checkpoints that go once the new one is safe.
    struct Cleanup {
        let steps: [Int]
        let prunes: Bool
    }

    /// - Parameters:
    ///   - staging: Where all ranks write; `nil` but on the first rank.
    ///   - write: Writes this rank's files and tells their digests.
    ///   - isCopied: Whether `write` runs on a thread of its own.
    init(
        step: Int, in folder: CheckpointFolder, over world: any Collective, staging: StagingFolder?, cleanup: Cleanup,
        old: OldCheckpoints, copiedBytes: Int?, began: ContinuousClock.Instant,
        write: @escaping @Sendable () throws -> [String: FileDigest]
    ) {
        self.step = step
        self.folder = folder
        self.world = world
        self.staging = staging
        self.cleanup = cleanup
        self.old = old
        self.copiedBytes = copiedBytes ?? 0
        let digests = WrittenFiles()
        self.digests = digests
        if copiedBytes != nil {
            written = FileThread.run { digests.set(try write()) }
        } else {
            written = ApusTensor.Event()
            written.signal(Result { digests.set(try write()) })
        }
        stall = (ContinuousClock.now - began).seconds
    }

    deinit {
        // The thread must not write into a folder that is going.
        if !isFinished { try? written.wait() }
    }

    /// Whether this rank has written its files, well or badly: ``finish(waitsForRemoval:)`` does not wait for it.
    public var isWritten: Bool { written.isComplete }

    /// Waits until all ranks have written and gives the checkpoint its name; then those that are no longer kept go.
    ///
    /// Every rank calls it, at the same place among its operations, once.
    ///
    /// - Parameter waitsForRemoval: Whether those are gone from storage when this returns, or just no longer checkpoints:
    ///   `false` while training goes on.
    /// - Throws: ``RankFailures`` on all ranks when any failed (on a rank alone its own error): there is no new checkpoint
    ///   then, and those before are unharmed. ``CollectiveError``.
    public func finish(waitsForRemoval: Bool = true) throws {
        precondition(!isFinished, "a save is finished once")
        if world.size > 1 { try world.waitForAll(written) }
        isFinished = true
        // On every way out that does not publish it the folder goes.
        defer { staging?.remove() }
        let task = "saving '\(folder.folder(step: step))'"
        let own = try world.agree(on: task) {
            try written.wait()
            return digests.value
        }
        let all = try world.collected(own.lines).flatMap { FileDigest.read(lines: $0) }
        try world.agree(on: task) {
            guard let staging else { return }
            try CheckpointManifest(files: Dictionary(all) { first, _ in first }).write(toFolder: staging.path)
            try staging.publish()
        }
        guard staging != nil else { return }
        var rest = cleanup.steps
        if cleanup.prunes { rest += folder.steps().filter { !cleanup.steps.contains($0) }.dropLast(folder.keep) }
        old.remove(Set(rest).subtracting([step]).sorted().map(folder.folder), waits: waitsForRemoval)
    }
}

/// The digests of the files that a rank has written.
final class WrittenFiles: Sendable {
    private let files = Mutex<[String: FileDigest]>([:])

    var value: [String: FileDigest] { files.withLock { $0 } }

    func set(_ value: [String: FileDigest]) { files.withLock { $0 = value } }
}

extension [String: FileDigest] {
    /// A line for each file: bytes, checksum, name.
    fileprivate var lines: String {
        map { "\($1.count) \($1.checksum) \($0)" }.joined(separator: "\n")
    }
}

extension FileDigest {
    fileprivate static func read(lines: String) -> [(String, FileDigest)] {
        lines.split(separator: "\n").compactMap { line in
            let fields = line.split(separator: " ", maxSplits: 2)
            guard fields.count == 3, let count = Int(fields[0]), let checksum = UInt64(fields[1]) else { return nil }
            return (String(fields[2]), FileDigest(count: count, checksum: checksum))
        }
    }
}
