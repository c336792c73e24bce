import Glibc
import Testing

/// A file system of a few pages, mounted for one test: a disk that is soon full.
public final class TinyFileSystem {
    /// Where it is mounted.
    public let path: String
    private let folder: ScratchFolder

    /// Whether this process may mount one: it takes root, and more in a container.
    public static var isAvailable: Bool { TinyFileSystem(bytes: 1 << 20) != nil }

    /// Mounts one that holds at most `bytes`; `nil` where that is not allowed.
    public init?(bytes: Int) {
        guard geteuid() == 0, access("/bin/mount", X_OK) == 0, let folder = try? ScratchFolder(),
            let mount = try? ChildProcess("/bin/mount", ["-t", "tmpfs", "-o", "size=\(bytes)", "tmpfs", folder.path]),
            mount.wait() == .exit(0)
        else { return nil }
        self.folder = folder
        path = folder.path
    }

    /// Lets nobody write from now on, not even root.
    public func makeReadOnly() throws { try remount("ro") }

    /// Gives it room for `bytes`.
    public func resize(bytes: Int) throws { try remount("size=\(bytes)") }

    private func remount(_ options: String) throws {
        let mount = try ChildProcess("/bin/mount", ["-o", "remount,\(options)", path])
        try #require(mount.wait() == .exit(0), "\(mount.errors)")
    }

    deinit { _ = try? ChildProcess("/bin/umount", [path]).wait() }
}
