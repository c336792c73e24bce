import ApusTensor
import CApusDrivers
import Glibc
import Synchronization

/// Attention by cuDNN's fused kernels: the library, looked for when it is first of use, and its plans, in memory and on disk.
final class FusedAttention: Sendable {
    /// Whether the backward pass adds in one order.
    let isDeterministic: Bool
    private let cache: KernelCache
    private let load: @Sendable () throws(LibraryProblem) -> apus_cudnn_table
    private let state = Mutex(State())

    /// One pass over one shape.
    private struct Kind: Hashable {
        let pass: AttentionPass
        let shape: FusedShape
    }

    private struct State {
        /// `nil` until it is looked for; then the library, or none.
        var library: AttentionLibrary??
        /// `nil` for what the library has no kernel for.
        var plans: [Kind: PreparedAttention?] = [:]
        var compiled = 0
        var problem: CUDAError?
    }

    /// Plans that are kept in memory: batches of ever new lengths must not pile up.
    private static let planLimit = 256
    /// Bytes of workspace that a deterministic backward pass may take; a larger one runs in parts.
    static let workspaceLimit = 512 << 20

    /// - Parameter load: Gives the library's functions, or says why there are none.
    init(
        isDeterministic: Bool, cache: KernelCache = .standard,
        load: @escaping @Sendable () throws(LibraryProblem) -> apus_cudnn_table = FusedAttention.functions
    ) {
        self.isDeterministic = isDeterministic
        self.cache = cache
        self.load = load
    }

    /// cuDNN's kernels, or `nil`, our own for everything, where the environment's `APUS_ATTENTION` is `own`, in any case.
    static func asked(isDeterministic: Bool) -> FusedAttention? {
        if let wish = getenv("APUS_ATTENTION"), String(cString: wish).lowercased() == "own" { return nil }
        return FusedAttention(isDeterministic: isDeterministic)
    }

    /// The functions of the library of this machine.
    static func functions() throws(LibraryProblem) -> apus_cudnn_table {
        try AttentionLibrary.loader.table(apus_cudnn_load).functions
    }

    /// Why our own kernels did a pass that cuDNN should have a plan for: the first reason.
    var problem: CUDAError? { state.withLock(\.problem) }

    /// Plans that were compiled rather than read from disk.
    var compiledCount: Int { state.withLock(\.compiled) }

    /// The plan of a pass; `nil` where there is no library, or it has no kernel for this shape.
    func plan(_ pass: AttentionPass, _ shape: FusedShape, on stream: CUDAStream) throws -> PreparedAttention? {
        try state.withLock { state in
            let kind = Kind(pass: pass, shape: shape)
            if let known = state.plans[kind] { return known }
            guard let library = library(&state, stream) else { return nil }
            let plan = try prepare(kind, library, stream.context, &state)
            if state.plans.count >= FusedAttention.planLimit { state.plans.removeAll() }
            state.plans[kind] = .some(plan)
            return plan
        }
    }

    /// Puts a pass into the stream. The library's handle takes one call at a time.
    func run(
        _ plan: PreparedAttention, _ addresses: [AttentionRole: UInt64], scale: Float, workspace: UInt64
    ) throws(CUDAError) {
        try state.withLock { _ throws(CUDAError) in try plan.run(addresses, scale: scale, workspace: workspace) }
    }

    /// The library; where it is missing or cannot be used our own kernels do the same work, and `apus doctor` says why.
    private func library(_ state: inout State, _ stream: CUDAStream) -> AttentionLibrary? {
        if let known = state.library { return known }
        do {
            state.library = .some(try AttentionLibrary(stream, functions: load()))
        } catch {
            state.problem = error as? CUDAError
            state.library = .some(nil)
        }
        return state.library ?? nil
    }

    /// A plan from disk, or compiled; `nil` for whatever reason the library makes none.
    private func prepare(
        _ kind: Kind, _ library: AttentionLibrary, _ context: CUDAContext, _ state: inout State
    ) throws(CUDAError) -> PreparedAttention? {
        try context.makeCurrent()
        do throws(CUDAError) {
            let graph = try AttentionGraph.of(kind.pass, kind.shape, library)
            let name = fileName(graph, kind, library, context)
            if let text = cache.read(name),
                let plan = try? PreparedAttention.kept(text, kind.pass, kind.shape, library)
            {
                return plan
            }
            let plan = try PreparedAttention.compiled(graph, kind.pass, kind.shape, library)
            state.compiled += 1
            if let text = try? plan.text() { cache.write(text, as: name) }
            return plan
        } catch {
            if state.problem == nil { state.problem = error }
            return nil
        }
    }

    /// A plan's file is named by all that it depends on.
    private func fileName(
        _ graph: GraphDescriptor, _ kind: Kind, _ library: AttentionLibrary, _ context: CUDAContext
    ) -> String {
        let device = context.device
        var hash = XXH64()
        for part in [
            "\(graph.checksum)", "\(kind.pass)", kind.shape.signature, "\(library.number)", device.name,
            "\(device.capability)",
            "\(device.multiprocessors)", "\(context.driver.version)",
        ] {
            Array((part + "\0").utf8).withUnsafeBytes { hash.update($0) }
        }
        return "attention-\(XXH64.hex(hash.value)).plan"
    }
}
