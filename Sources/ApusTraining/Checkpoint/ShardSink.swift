import ApusModels
import ApusTensor

/// The files that one writer adds to a checkpoint: once one fails, the rest of what it is given is passed over.
///
/// A rank whose storage fails must go on taking part in what ranks do together; ``finish()`` tells.
final class ShardSink {
    private var writer: ShardedSafetensorsWriter?
    /// Why writing failed.
    private(set) var failure: (any Error)?

    /// The sink of a rank.
    init(_ shards: SharedShards, writer rank: Int, folder: String) {
        do {
            writer = try shards.writer(rank, folder: folder)
        } catch {
            failure = error
        }
    }

    /// Notes a failure from elsewhere: the files are not written.
    func fail(_ error: any Error) { failure = failure ?? error }

    /// Appends bytes to a tensor: all of it, or the next piece.
    func append(_ bytes: UnsafeRawBufferPointer, to name: String) {
        guard failure == nil, var open = writer.take() else { return }
        do {
            try open.append(bytes, to: name)
            writer = consume open
        } catch {
            failure = error
        }
    }

    /// Closes the files.
    ///
    /// - Returns: what a manifest needs to check them; nothing where there is no file.
    /// - Throws: the first failure.
    func finish() throws -> [String: FileDigest] {
        if let failure { throw failure }
        guard let open = writer.take() else { return [:] }
        return try open.finish()
    }
}
