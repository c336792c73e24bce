public import ApusCollectives
import ApusKernels
import ApusTensor

/// The ranks of a world whose tensors are on GPUs.
public enum CUDAWorld {
    /// Runs `body` with a communicator of the ranks of `host` for tensors of `backend`'s device and of the host. Every rank
    /// calls this, each with a GPU of its own, and leaves when all have finished.
    ///
    /// After an error nothing is closed: the world of `host` is to be ended by whoever made it.
    ///
    /// - Throws: ``LibraryProblem`` where NCCL is missing or too old; ``CollectiveError``, ``CUDAError``; what `body`
    ///   throws.
    public static func run<Value>(
        over host: any Collective, on backend: CUDABackend, _ body: (NCCLCollective) throws -> Value
    ) throws -> Value {
        let collective = try collective(over: host, on: backend)
        let value = try body(collective)
        try collective.world.close(with: host)
        return value
    }

    /// A communicator of the ranks of `host`, which all call this: for tensors of `backend`'s device by NCCL, for those of
    /// the host by `host`.
    static func collective(
        over host: any Collective, on backend: CUDABackend, library: NCCLLibrary? = nil
    ) throws -> NCCLCollective {
        let library = host.size > 1 ? try library ?? NCCLLibrary.shared.get() : nil
        return try NCCLCollective(
            host, NCCLWorld(backend, library: library), DeviceCalls(over: host, carrier: "NCCL"))
    }

    /// Where the operations of such a communicator are checked: the memory of `backend`'s device.
    ///
    /// - Parameter ranks: Their number: of two numbers there is but one order.
    public static func place(on backend: CUDABackend, ranks: Int) -> TensorPlace {
        TensorPlace(stream: backend.stream, addsInRankOrder: ranks <= 2) { host in
            let copy = try backend.empty(host.shape, host.dtype, .data)
            let bytes = host.dtype.byteCount(elements: host.count)
            try backend.upload(UnsafeRawBufferPointer(start: host.rawPointer, count: bytes), into: copy)
            return copy
        } fetch: { copy in
            var host = try backend.download(copy)
            try host.ready?.wait()
            host.ready = nil
            return host
        }
    }

    /// A bench of `collective` in the memory of `backend`'s device.
    public static func bench(of collective: any Collective, on backend: CUDABackend) -> CollectiveBench {
        // Times are host tensors, which `collective` hands to its host.
        CollectiveBench(of: collective, control: collective, stream: backend.stream) { count in
            let tensor = try backend.empty(Shape(count), .f32, .data)
            try backend.fill(tensor, with: 1)
            return tensor
        }
    }
}
