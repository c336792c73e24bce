import ApusCollectives
import ApusTensor
import CApusDrivers
import Glibc
import Synchronization

/// The start of one of NCCL's communicators, on a thread of its own: NCCL waits for the other ranks without end.
final class NCCLStart: Sendable {
    private let outcome = Mutex<Result<NCCLCommunicator, any Error>?>(nil)

    /// Sets how it ended; the first time counts.
    func end(_ result: Result<NCCLCommunicator, any Error>) {
        outcome.withLock { outcome in
            if outcome == nil { outcome = result }
        }
    }

    /// Waits for the end, and not for longer than the call may take.
    ///
    /// - Throws: ``CollectiveError``, ``CUDAError``.
    func wait(for call: DeviceCall) throws -> NCCLCommunicator {
        while true {
            if let outcome = outcome.withLock({ $0 }) { return try outcome.get() }
            // Fails this start too.
            if call.isOverdue(at: .now) { call.failAsLate() }
            usleep(500)
        }
    }

    /// A new id that rank 0 of `host` makes, on all its ranks.
    ///
    /// - Throws: ``CUDAError`` on rank 0 when NCCL makes none, ``CollectiveError``.
    static func share(_ library: NCCLLibrary, over host: any Collective) throws -> apus_nccl_id {
        var id = apus_nccl_id()
        var failure: CUDAError?
        if host.rank == 0 {
            do throws(CUDAError) {
                try library.check(library.functions.make_id(&id), "ncclGetUniqueId")
            } catch { failure = error }
        }
        // The id, and whether there is one.
        let count = MemoryLayout<apus_nccl_id>.size
        let message = try CachingAllocator().empty(Shape(count + 1), .u8, .workspace)
        let bytes = message.pointer(to: UInt8.self)
        withUnsafeBytes(of: &id) { source in
            for (place, byte) in source.enumerated() { bytes[place] = byte }
        }
        bytes[count] = failure == nil ? 1 : 0
        try host.broadcast(message, root: 0)
        if let failure { throw failure }
        guard bytes[count] == 1 else {
            throw CollectiveError.aborted(communicator: host.name, reason: "NCCL could not begin on its first rank")
        }
        withUnsafeMutableBytes(of: &id) { target in
            for place in target.indices { target[place] = bytes[place] }
        }
        return id
    }
}
