import ApusCUDA
import ApusCollectives
import ApusKernels
import ArgumentParser

extension DeviceChoice {
    /// The backend of this rank among those of `world`, as ``backend(threads:memoryLimit:batchInvariant:deterministic:)``
    /// gives it to one alone; `auto` is the same on all ranks. Every rank calls this.
    func backend(
        over world: any Collective, threads: Int?, memoryLimit: Int?, deterministic: Bool
    ) throws -> any Backend {
        guard self == .automatic, world.size > 1 else {
            return try backend(threads: threads, memoryLimit: memoryLimit, deterministic: deterministic)
        }
        let found = try DeviceChoice.gpu(memoryLimit, deterministic: deterministic)
        switch try CUDAWorld.choice(CUDAWorld.RankDevice(found), over: world) {
        case .gpus: return try found.get()
        case .processors(let reason):
            if let reason, world.rank == 0 { writeError("note: \(reason); all ranks compute on the CPU") }
            return try DeviceChoice.cpu.backend(
                threads: threads, memoryLimit: memoryLimit, deterministic: deterministic)
        }
    }

    /// Runs `body` with the communicator by which ranks exchange tensors of `backend`: that of the host, or, between GPUs,
    /// one over it. Every rank calls this.
    ///
    /// - Throws: ``RankDifference`` when some ranks have a GPU and others have not; what `body` throws.
    func exchanging<Value>(
        _ backend: any Backend, over world: any Collective, _ body: (any Collective) throws -> Value
    ) throws -> Value {
        guard world.size > 1 else { return try body(world) }
        try world.requireSame(backend is CUDABackend ? "cuda" : "cpu", what: "device")
        guard let backend = backend as? CUDABackend else { return try body(world) }
        return try onGPUs(backend, over: world, body)
    }

    /// Runs `body` with a communicator between GPUs over `world`, of one rank too.
    func onGPUs<Value>(
        _ backend: CUDABackend, over world: any Collective, _ body: (NCCLCollective) throws -> Value
    ) throws -> Value {
        do {
            return try CUDAWorld.run(over: world, on: backend, body)
        } catch let problem as LibraryProblem {
            throw CommandError("--device cuda: \(problem); --device cpu computes without it")
        }
    }

    /// A GPU of this rank's own for operations between ranks, which compute nothing.
    func ranksGPU() throws -> CUDABackend {
        let backend = try DeviceChoice.cuda.backend(threads: 1, memoryLimit: nil)
        guard let backend = backend as? CUDABackend else { preconditionFailure("--device cuda is a GPU") }
        return backend
    }
}

extension Collective {
    /// What carries messages: `Open MPI v4.1.4`, `NCCL 2.28`; `nil` on a single rank.
    var carrier: String? {
        if let gpus = self as? NCCLCollective { return gpus.version.map { "NCCL \($0)" } }
        return (self as? MPICollective)?.world.library
    }
}
