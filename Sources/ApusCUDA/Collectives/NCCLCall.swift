import ApusCollectives
import ApusTensor
import CApusDrivers

/// An operation on its way to NCCL, and the calls that it is.
struct NCCLCall: Sendable {
    let operation: CollectiveOperation
    let work: NCCLWork
    let noted: DeviceCall
    let calls: DeviceCalls
    /// `nil` for a communicator of one rank, whose operations are copies.
    let communicator: NCCLCommunicator?
    /// The caller's rank in the communicator.
    let rank: Int

    /// Whether it is a message between two ranks, which begins together with others.
    var isMessage: Bool {
        switch operation {
        case .send, .receive: true
        default: false
        }
    }

    /// Whether it is the sender's side of a message.
    var isSend: Bool {
        if case .send = operation { true } else { false }
    }

    /// Puts the operation into the stream.
    func issue(on stream: CUDAStream) throws(CUDAError) {
        guard let communicator else { return try copy(on: stream) }
        let library = communicator.library
        let (functions, handle) = (library.functions, communicator.handle)
        switch operation {
        case .allReduce(let input, let reduction, let output):
            try library.check(
                functions.all_reduce(
                    input.bytes, output.bytes, input.count, input.dtype.nccl, reduction.nccl, handle, stream.handle),
                "ncclAllReduce of \(input.count) \(input.dtype)", of: handle)
        case .reduceScatter(let input, let reduction, let output):
            try library.check(
                functions.reduce_scatter(
                    input.bytes, output.bytes, output.count, input.dtype.nccl, reduction.nccl, handle, stream.handle),
                "ncclReduceScatter of \(input.count) \(input.dtype)", of: handle)
        case .allGather(let input, let output):
            try library.check(
                functions.all_gather(
                    input.bytes, output.bytes, input.count, input.dtype.nccl, handle, stream.handle),
                "ncclAllGather of \(input.count) \(input.dtype)", of: handle)
        case .broadcast(let tensor, let root):
            try library.check(
                functions.broadcast(
                    tensor.bytes, tensor.bytes, tensor.count, tensor.dtype.nccl, Int32(root), handle, stream.handle),
                "ncclBroadcast of \(tensor.count) \(tensor.dtype)", of: handle)
        case .allToAll(let input, let output, let splits):
            try issue(allToAll: input, into: output, splits, communicator, stream)
        case .send(let tensor, let target):
            guard tensor.count > 0 else { return }
            try library.check(
                functions.send(tensor.bytes, tensor.count, tensor.dtype.nccl, Int32(target), handle, stream.handle),
                "ncclSend of \(tensor.count) \(tensor.dtype) to rank \(target)", of: handle)
        case .receive(let tensor, let source):
            guard tensor.count > 0 else { return }
            try library.check(
                functions.receive(tensor.bytes, tensor.count, tensor.dtype.nccl, Int32(source), handle, stream.handle),
                "ncclRecv of \(tensor.count) \(tensor.dtype) from rank \(source)", of: handle)
        case .barrier: preconditionFailure("a barrier is the host's")
        }
    }

    /// Part `j` to rank `j`, all parts at once, this rank's own too: a copy of it beside the group would follow the group, or
    /// come before it. A part without rows is no message: both sides know of it.
    private func issue(
        allToAll input: Tensor, into output: Tensor, _ splits: RowSplits?, _ communicator: NCCLCommunicator,
        _ stream: CUDAStream
    ) throws(CUDAError) {
        let (sent, received) = parts(input, splits, ranks: communicator.members.count)
        guard (sent + received).contains(where: { $0 > 0 }) else { return }
        let library = communicator.library
        let (functions, handle) = (library.functions, communicator.handle)
        let width = input.dtype.byteCount
        try library.group(of: handle) { () throws(CUDAError) in
            var (source, target) = (input.bytes, output.bytes)
            for peer in sent.indices {
                if sent[peer] > 0 {
                    try library.check(
                        functions.send(source, sent[peer], input.dtype.nccl, Int32(peer), handle, stream.handle),
                        "ncclSend of \(sent[peer]) \(input.dtype) to rank \(peer)", of: handle)
                }
                if received[peer] > 0 {
                    try library.check(
                        functions.receive(target, received[peer], input.dtype.nccl, Int32(peer), handle, stream.handle),
                        "ncclRecv of \(received[peer]) \(input.dtype) from rank \(peer)", of: handle)
                }
                source += sent[peer] * width
                target += received[peer] * width
            }
        }
    }

    /// Elements for and from each rank. What a rank has for itself is as much on both sides.
    private func parts(_ input: Tensor, _ splits: RowSplits?, ranks: Int) -> (sent: [Int], received: [Int]) {
        guard let splits else {
            let even = Array(repeating: input.count / ranks, count: ranks)
            return (even, even)
        }
        precondition(
            splits.sent[rank] == splits.received[rank],
            "\(splits.sent[rank]) rows to itself, \(splits.received[rank]) from itself")
        return (splits.sent.map { $0 * input.rowCount }, splits.received.map { $0 * input.rowCount })
    }

    /// The operation of a single rank.
    private func copy(on stream: CUDAStream) throws(CUDAError) {
        guard let input = operation.input, let output = operation.output else { return }
        guard input.address != output.address else { return }
        var count = min(input.count, output.count)
        if case .allToAll(_, _, let splits?) = operation { count = splits.sent[0] * input.rowCount }
        guard count > 0 else { return }
        try stream.copy(
            from: input.address, to: output.address, byteCount: input.dtype.byteCount(elements: count))
    }
}

extension Tensor {
    /// The first byte on the device.
    fileprivate var bytes: UnsafeMutableRawPointer {
        guard let pointer = UnsafeMutableRawPointer(bitPattern: UInt(address)) else {
            preconditionFailure("a tensor at address 0")
        }
        return pointer
    }
}

extension DType {
    fileprivate var nccl: Int32 {
        switch self {
        case .f32: APUS_NCCL_F32
        case .bf16: APUS_NCCL_BF16
        case .i32: APUS_NCCL_I32
        case .u8: APUS_NCCL_U8
        }
    }
}

extension Reduction {
    fileprivate var nccl: Int32 { self == .sum ? APUS_NCCL_SUM : APUS_NCCL_MAX }
}
