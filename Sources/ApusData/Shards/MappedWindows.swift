import ApusTensor
import Glibc
import Synchronization

/// Read-only mappings of parts of files, of which the least recently used give way.
///
/// A corpus of any size is read in bounded address space. Files are mapped in aligned windows of 16 MiB, so whole
/// numbers of 2, 4 or 8 bytes at multiples of their size never lie in two.
final class MappedWindows: Sendable {
    static let windowBytes = 16 << 20

    /// One window; unmapped when nobody holds it.
    final class Window: Sendable {
        // Safe to share: the pages are read-only and live until `deinit`.
        nonisolated(unsafe) fileprivate let base: UnsafeRawPointer
        fileprivate let count: Int

        fileprivate init(_ file: borrowing FileDescriptor, index: Int, fileBytes: Int) throws {
            let offset = index * MappedWindows.windowBytes
            count = min(MappedWindows.windowBytes, fileBytes - offset)
            // MAP_FAILED is (void *)-1, which is not imported.
            guard let address = mmap(nil, count, PROT_READ, MAP_PRIVATE, file.raw, off_t(offset)),
                Int(bitPattern: address) != -1
            else { throw systemFailure(file.path, "mapping \(count) bytes") }
            base = UnsafeRawPointer(address)
        }

        deinit { munmap(UnsafeMutableRawPointer(mutating: base), count) }

        /// The bytes from `offset` of the window on.
        func withBytes<Result, Failure: Error>(
            from offset: Int, _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
        ) throws(Failure) -> Result {
            try withExtendedLifetime(self) { () throws(Failure) -> Result in
                try body(UnsafeRawBufferPointer(start: base + offset, count: count - offset))
            }
        }
    }

    private struct Key: Hashable {
        let file: Int
        let window: Int
    }

    private struct State {
        var windows: [Key: (window: Window, use: Int)] = [:]
        var uses = 0
    }

    private let limit: Int
    private let state = Mutex(State())

    /// Keeps at most `limit` windows; by default as many as the process' address space has room for beside its work.
    init(limit: Int = MappedWindows.defaultLimit) {
        precondition(limit > 0)
        self.limit = limit
    }

    /// 64 GiB where the address space is not limited, else an eighth of it, and two windows at least.
    static var defaultLimit: Int {
        var bounds = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &bounds) == 0, bounds.rlim_cur < 1 << 46 else {
            return 4096
        }
        return min(4096, max(2, Int(bounds.rlim_cur) / 8 / windowBytes))
    }

    /// The window that holds byte `offset` of a file, which `file` numbers.
    func window(
        holding offset: Int, of descriptor: borrowing FileDescriptor, numbered file: Int, fileBytes: Int
    ) throws -> Window {
        let key = Key(file: file, window: offset / Self.windowBytes)
        let found = state.withLock { state -> Window? in
            state.uses += 1
            state.windows[key]?.use = state.uses
            return state.windows[key]?.window
        }
        if let found { return found }
        let made = try Window(descriptor, index: key.window, fileBytes: fileBytes)
        state.withLock { state in
            if state.windows.count >= limit, let oldest = state.windows.min(by: { $0.value.use < $1.value.use }) {
                state.windows[oldest.key] = nil
            }
            state.windows[key] = (made, state.uses)
        }
        return made
    }
}
