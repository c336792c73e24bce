import ApusKernels
import ApusTensor
import CApusDrivers

/// Ops of a device's stream, recorded once; one call gives all of them to the device.
// Sendable: nothing changes after the graph is made, and the driver's functions may be called from any thread.
final class CUDAGraph: RecordedWork, @unchecked Sendable {
    /// Launches and copies.
    let nodeCount: Int
    private let stream: CUDAStream
    private let handle: apus_cu_graph_runnable
    /// The memory that the ops made for themselves, and what else they read that nobody may hold.
    private let reserve: MemoryReserve
    private let kept: [Tensor]

    init(_ graph: apus_cu_graph, _ stream: CUDAStream, reserve: MemoryReserve, keeping kept: [Tensor]) throws(CUDAError)
    {
        let driver = stream.context.driver
        var count = 0
        try driver.check(driver.functions.graph_nodes(graph, nil, &count), "cuGraphGetNodes")
        var runnable: apus_cu_graph_runnable?
        try driver.check(
            driver.functions.graph_instantiate(&runnable, graph, 0), "cuGraphInstantiateWithFlags of \(count) nodes")
        guard let runnable else { preconditionFailure("cuGraphInstantiateWithFlags made nothing") }
        (nodeCount, self.stream, handle, self.reserve, self.kept) = (count, stream, runnable, reserve, kept)
    }

    // The driver keeps what is under way until it is done, and whoever gets the memory next comes after it on the stream.
    deinit {
        _ = try? stream.context.makeCurrent()
        _ = stream.context.driver.functions.graph_destroy_runnable(handle)
    }

    func run() throws {
        let driver = stream.context.driver
        try stream.context.makeCurrent()
        try driver.check(driver.functions.graph_launch(handle, stream.handle), "cuGraphLaunch of \(nodeCount) nodes")
    }
}

/// Something that recorded work cannot contain.
public struct RecordingError: Error, Sendable, CustomStringConvertible {
    /// What was asked for.
    public let request: String

    /// One sentence, and what would work.
    public var description: String {
        """
        \(request) cannot be part of recorded work, which moves no elements between host and device and tells no time: do it \
        before
        """
    }
}
