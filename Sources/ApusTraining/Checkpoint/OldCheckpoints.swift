import ApusModels
import ApusTensor
import Glibc

/// Checkpoints that are no longer kept: gone at once as checkpoints, and from storage as soon as that gets to it.
///
/// Removing many gigabytes takes a while, for which training would stand still.
final class OldCheckpoints {
    private var removals: [ApusTensor.Event] = []

    /// Removes folders.
    ///
    /// Each gets the name of one whose writer died: nobody takes what is left of it for a checkpoint, and if this process
    /// ends first, the next save clears it away.
    ///
    /// - Parameter waits: Whether it is done, and so is what was begun before, when this returns.
    func remove(_ folders: [String], waits: Bool) {
        let renamed = folders.map { folder in
            let name = AbandonedFiles.temporaryPath(for: folder)
            do throws(FileError) {
                try Renaming.toFreeName(folder, name)
                return name
            } catch {
                return folder
            }
        }
        removals.removeAll(where: \.isComplete)
        if !renamed.isEmpty {
            removals.append(FileThread.run { for folder in renamed { try? Self.removeLocked(folder) } })
        }
        guard waits else { return }
        for removal in removals { try? removal.wait() }
        removals = []
    }

    /// Under the lock of a live writer, so that the next save does not stop to clear away what is going already.
    private static func removeLocked(_ folder: String) throws(FileError) {
        let handle = try FileDescriptor(
            path: folder, flags: O_RDONLY | O_DIRECTORY | O_NOFOLLOW, operation: "opening folder")
        _ = handle.lock()
        try RunFolder.remove(folder)
    }
}
