/// Work that was recorded, to be given to the device again and again.
public protocol RecordedWork: AnyObject {
    /// Puts the work into the backend's stream, once more.
    func run() throws
}

/// Work that is put together once and repeated.
public protocol RecordingOp {
    /// Whether repeating recorded work costs less than enqueueing the same ops anew.
    var isRecordingCheaper: Bool { get }
    /// Records the ops that `body` enqueues, which do not run now.
    ///
    /// The work reads and writes the same memory every time: `body` finds what changes in tensors that exist before, and
    /// leaves its results in such, and whoever holds the work holds them. What is made inside is the work's own. `body` may
    /// not move elements between host and device, nor wait; on a device it is called once, now, on the CPU in every run.
    /// Work that a device has not done before is better done once without being recorded.
    ///
    /// - Throws: what `body` and the device throw; nothing is then recorded.
    func record(_ body: @escaping () throws -> Void) throws -> any RecordedWork
}

extension CPUBackend: RecordingOp {
    public var isRecordingCheaper: Bool { false }

    public func record(_ body: @escaping () throws -> Void) throws -> any RecordedWork { RepeatedCall(body) }
}

/// On the CPU ops run as they are called: to repeat them is to call them again.
private final class RepeatedCall: RecordedWork {
    private let body: () throws -> Void

    init(_ body: @escaping () throws -> Void) { self.body = body }

    func run() throws { try body() }
}
