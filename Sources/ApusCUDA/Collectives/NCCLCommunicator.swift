import CApusDrivers
import Synchronization

/// NCCL's own communicator: some ranks, each with its device.
// Sendable: the handle never changes; who calls what from which thread is the world's to order.
final class NCCLCommunicator: @unchecked Sendable {
    let handle: apus_nccl_communicator
    /// Its ranks, by their rank in the world.
    let members: [Int]
    let library: NCCLLibrary
    private let context: CUDAContext
    private let isOver = Atomic(false)

    init(_ handle: apus_nccl_communicator, members: [Int], library: NCCLLibrary, context: CUDAContext) {
        self.handle = handle
        self.members = members
        self.library = library
        self.context = context
    }

    /// Makes a communicator, together with all other ranks. Blocks until they have come, without end.
    static func make(
        _ id: apus_nccl_id, rank: Int, members: [Int], library: NCCLLibrary, context: CUDAContext
    ) throws(CUDAError) -> NCCLCommunicator {
        try context.makeCurrent()
        let unset = Int32.min
        var configuration = apus_nccl_configuration(
            size: MemoryLayout<apus_nccl_configuration>.size, magic: APUS_NCCL_MAGIC,
            version: APUS_NCCL_CONFIGURATION_VERSION, blocking: 1, cluster_size: unset,
            fewest_blocks: unset, most_blocks: unset, network: nil, split_share: unset,
            reserved: unset)
        var handle: apus_nccl_communicator?
        let code = library.functions.initialize(&handle, Int32(members.count), id, Int32(rank), &configuration)
        try library.check(code, "ncclCommInitRankConfig of \(members.count) ranks")
        guard let handle else { preconditionFailure("ncclCommInitRankConfig made no communicator") }
        return NCCLCommunicator(handle, members: members, library: library, context: context)
    }

    /// What went wrong on the way, found by NCCL's own threads or its kernels; `nil` when nothing did.
    var problem: String? {
        guard !isOver.load(ordering: .acquiring) else { return nil }
        var code: Int32 = 0
        let status = library.functions.asynchronous_error(handle, &code)
        let worse = status == APUS_NCCL_SUCCESS ? code : status
        guard worse != APUS_NCCL_SUCCESS, worse != APUS_NCCL_IN_PROGRESS else { return nil }
        let words = library.complaint(of: handle)
        return "NCCL: \(String(cString: library.functions.error_text(worse)))\(words.isEmpty ? "" : ", \(words)")"
    }

    /// Ends what is under way, and the communicator.
    func abort() {
        guard !isOver.exchange(true, ordering: .acquiringAndReleasing) else { return }
        _ = try? context.makeCurrent()
        _ = library.functions.abort(handle)
    }

    /// Ends the communicator when nothing is under way on any rank.
    func destroy() {
        guard !isOver.exchange(true, ordering: .acquiringAndReleasing) else { return }
        _ = try? context.makeCurrent()
        _ = library.functions.finalize(handle)
        _ = library.functions.destroy(handle)
    }
}
