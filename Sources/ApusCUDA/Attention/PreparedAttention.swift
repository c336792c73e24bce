import CApusDrivers

/// A pass over one shape, ready to run: the kernel that cuDNN found for it.
final class PreparedAttention: Sendable {
    /// Bytes of workspace of the plan itself, beside those of ``AttentionRole/delta`` and the like.
    let workspaceBytes: Int
    private let plan: GraphDescriptor
    /// What the plan was made from; `nil` for one that was kept.
    private let graph: GraphDescriptor?
    private let numbers: [AttentionRole]
    private let library: AttentionLibrary

    private init(
        _ plan: GraphDescriptor, of graph: GraphDescriptor? = nil, _ pass: AttentionPass, _ shape: FusedShape,
        _ library: AttentionLibrary
    ) throws(CUDAError) {
        self.plan = plan
        self.graph = graph
        self.library = library
        numbers = AttentionGraph.numbers(pass, shape)
        workspaceBytes = try plan.integer(APUS_DNN_PLAN_WORKSPACE_BYTES)
    }

    /// The first of the library's proposals that works, compiled for the device: a second or two.
    ///
    /// - Throws: ``CUDAError``, of the last proposal.
    static func compiled(
        _ graph: GraphDescriptor, _ pass: AttentionPass, _ shape: FusedShape, _ library: AttentionLibrary
    ) throws(CUDAError) -> PreparedAttention {
        let heuristics = try GraphDescriptor(APUS_DNN_HEURISTICS, "the choice of a kernel", library)
        try heuristics.set(APUS_DNN_HEURISTICS_GRAPH, graph)
        try heuristics.set(APUS_DNN_HEURISTICS_MODE, APUS_DNN_HEURISTICS_A, of: APUS_DNN_VALUE_HEURISTICS_MODE)
        try heuristics.finish()
        let proposals = try heuristics.descriptors(
            APUS_DNN_HEURISTICS_RESULTS, of: APUS_DNN_ENGINE_CONFIGURATION, "a proposed kernel")
        var failure = CUDAError(
            call: "cudnnBackendGetAttribute of the choice of a kernel", code: Int(APUS_DNN_NOT_SUPPORTED),
            name: "CUDNN_STATUS_NOT_SUPPORTED", explanation: "no proposal for \(pass) of \(shape.signature)",
            file: #fileID, line: #line)
        for proposal in proposals {
            do throws(CUDAError) {
                let plan = try GraphDescriptor(APUS_DNN_PLAN, "a plan for \(pass) of \(shape.signature)", library)
                try plan.setHandle(APUS_DNN_PLAN_HANDLE)
                try plan.set(APUS_DNN_PLAN_CONFIGURATION, proposal)
                try plan.finish()
                return try PreparedAttention(plan, of: graph, pass, shape, library)
            } catch {
                failure = error
            }
        }
        throw failure
    }

    /// The plan that ``text()`` described, code and all: milliseconds.
    static func kept(
        _ text: [UInt8], _ pass: AttentionPass, _ shape: FusedShape, _ library: AttentionLibrary
    ) throws(CUDAError) -> PreparedAttention {
        let plan = try GraphDescriptor(APUS_DNN_PLAN, "a plan that was kept", library)
        try plan.setHandle(APUS_DNN_PLAN_HANDLE)
        try plan.set(APUS_DNN_PLAN_TEXT, text: text)
        try plan.finish()
        return try PreparedAttention(plan, pass, shape, library)
    }

    /// The plan as bytes.
    func text() throws(CUDAError) -> [UInt8] { try plan.text(APUS_DNN_PLAN_TEXT) }

    /// Puts the pass into the library's stream.
    ///
    /// - Parameters:
    ///   - addresses: Where the tensors of the graph are: all of them, and no others.
    ///   - workspace: The address of ``workspaceBytes``.
    func run(_ addresses: [AttentionRole: UInt64], scale: Float, workspace: UInt64) throws(CUDAError) {
        func pointer(_ address: UInt64) -> UnsafeMutableRawPointer? {
            UnsafeMutableRawPointer(bitPattern: UInt(address))
        }
        let values = UnsafeMutableBufferPointer<Float>.allocate(capacity: numbers.count)
        defer { values.deallocate() }
        for (index, number) in numbers.enumerated() {
            values[index] = number == .scale ? scale : number == .unseen ? -.infinity : 1
        }
        let tensors = addresses.map { (role: $0.key, place: pointer($0.value)) }
        let pack = try GraphDescriptor(APUS_DNN_VARIANT_PACK, "the arguments of attention", library)
        try pack.set(APUS_DNN_VARIANT_PACK_IDS, (tensors.map(\.role) + numbers).map(\.rawValue))
        try pack.set(
            APUS_DNN_VARIANT_PACK_ADDRESSES,
            tensors.map(\.place) + values.indices.map { index in values.baseAddress.map { .init($0 + index) } })
        try pack.set(APUS_DNN_VARIANT_PACK_WORKSPACE, [pointer(workspace)])
        try pack.finish()
        try library.check(
            library.functions.execute(library.handle, plan.handle, pack.handle), "cudnnBackendExecute")
    }
}
