import ApusModels
import ApusTensor
import Glibc

/// The right to write into the folder of a run: one run has it at a time.
///
/// It is an advisory lock on the folder itself, so nothing is left over: the system drops it with the process, however
/// that ends. Where the file system keeps no such locks, everybody is let in.
final class RunLock: Sendable {
    private let folder: FileDescriptor

    /// Takes it without waiting.
    ///
    /// - Throws: ``TrainingCheckpointError/runInProgress(folder:)``; ``FileError`` for what is no folder.
    init(_ path: String) throws {
        folder = try FileDescriptor(path: path, flags: O_RDONLY | O_DIRECTORY, operation: "opening folder")
        if folder.lock() == .heldByAnother { throw TrainingCheckpointError.runInProgress(folder: path) }
    }

    /// Takes that of a folder, if there is one; what is there and is no folder is refused.
    static func ifThere(_ path: String) throws -> RunLock? {
        guard access(path, F_OK) == 0 else { return nil }
        try RunFolder.create(path)
        return try RunLock(path)
    }
}
