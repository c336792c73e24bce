import ApusCollectives
import ApusTensor
import CApusDrivers
import Glibc
import Synchronization

@testable import ApusCUDA

/// An NCCL that moves nothing, and notes what it was asked.
enum FakeNCCL {
    struct State {
        /// The calls so far, by the field of the table, with counts, types and peers.
        var calls: [String] = []
        /// Where the buffers of those calls were, inputs before outputs.
        var addresses: [UInt] = []
        /// Groups that were begun and not ended.
        var openGroups = 0
        /// Calls that fail, and with which code.
        var failures: [String: Int32] = [:]
        /// What communicators say of themselves.
        var asynchronous: Int32 = 0
        /// A communicator that is not aborted before ``FakeNCCL/reset()``.
        var hanging: Int?
        /// What the communicators were asked to be.
        var configurations: [Configuration] = []
        /// The first bytes of the ids of communicators.
        var ids: [CChar] = []
        var version: Int32 = 22803
        var nextHandle = 1
    }

    /// The fields of `apus_nccl_configuration` that are looked at.
    struct Configuration {
        let size: Int
        let magic, version: UInt32
        let blocking, splitShare: Int32
        let namesNetwork: Bool
    }

    static let state = Mutex(State())
    static func reset() { state.withLock { $0 = State() } }

    /// The calls since the last time.
    static func takeCalls() -> [String] {
        state.withLock { state in
            defer {
                state.calls = []
                state.addresses = []
            }
            return state.calls
        }
    }

    /// Waits until `call` was made, for some seconds at most.
    static func hasSeen(_ call: String) -> Bool {
        for _ in 0..<5000 {
            if state.withLock({ $0.calls.contains(call) }) { return true }
            usleep(1000)
        }
        return false
    }

    private static func note(
        _ call: String, _ buffers: [UnsafeRawPointer] = [], _ body: (inout State) -> Void = { _ in }
    ) -> Int32 {
        state.withLock { state in
            state.calls.append(call)
            state.addresses += buffers.map { UInt(bitPattern: $0) }
            body(&state)
            return state.failures[call] ?? 0
        }
    }

    static func library() throws -> NCCLLibrary { try NCCLLibrary(functions: table) }

    /// The functions of libnccl.
    static var table: apus_nccl_table {
        apus_nccl_table(
            version: { version in
                version.pointee = FakeNCCL.state.withLock(\.version)
                return 0
            },
            make_id: { id in
                id.pointee.bytes.0 = 42
                return FakeNCCL.note("make_id")
            },
            initialize: { communicator, size, id, rank, configuration in
                let asked = configuration.pointee
                let noted = Configuration(
                    size: asked.size, magic: asked.magic, version: asked.version, blocking: asked.blocking,
                    splitShare: asked.split_share, namesNetwork: asked.network != nil)
                let made = FakeNCCL.state.withLock { state in
                    state.nextHandle += 1
                    state.configurations.append(noted)
                    state.ids.append(id.bytes.0)
                    return state.nextHandle
                }
                communicator.pointee = OpaquePointer(bitPattern: made)
                return FakeNCCL.note("initialize \(rank) of \(size)")
            },
            finalize: { _ in FakeNCCL.note("finalize") },
            destroy: { _ in FakeNCCL.note("destroy") },
            abort: { communicator in
                let handle = Int(bitPattern: communicator)
                while FakeNCCL.state.withLock({ $0.hanging == handle }) { usleep(1000) }
                return FakeNCCL.note("abort")
            },
            asynchronous_error: { _, code in
                code.pointee = FakeNCCL.state.withLock(\.asynchronous)
                return 0
            },
            all_reduce: { input, output, count, type, reduction, _, _ in
                FakeNCCL.note("all_reduce \(count) of \(type) by \(reduction)", [input, UnsafeRawPointer(output)])
            },
            reduce_scatter: { input, output, count, type, reduction, _, _ in
                FakeNCCL.note("reduce_scatter \(count) of \(type) by \(reduction)", [input, UnsafeRawPointer(output)])
            },
            all_gather: { input, output, count, type, _, _ in
                FakeNCCL.note("all_gather \(count) of \(type)", [input, UnsafeRawPointer(output)])
            },
            broadcast: { input, output, count, type, root, _, _ in
                FakeNCCL.note("broadcast \(count) of \(type) from \(root)", [input, UnsafeRawPointer(output)])
            },
            send: { input, count, type, peer, _, _ in
                FakeNCCL.note("send \(count) of \(type) to \(peer)", [input])
            },
            receive: { output, count, type, peer, _, _ in
                FakeNCCL.note("receive \(count) of \(type) from \(peer)", [UnsafeRawPointer(output)])
            },
            group_start: { FakeNCCL.note("group_start") { $0.openGroups += 1 } },
            group_end: { FakeNCCL.note("group_end") { $0.openGroups -= 1 } },
            error_text: { _ in UnsafePointer(strdup("remote process exited")) },
            last_error: { _ in UnsafePointer(strdup("socket closed\n")) })
    }
}

/// The host's communicator as one rank sees it, whose operations are over at once and change nothing.
final class FakeHost: Collective {
    let name: String
    let rank: Int
    let members: [Int]
    let timeout: Duration
    private let log: Log

    final class Log: Sendable {
        /// Operations, splits and aborts, in their order.
        let calls = Mutex<[String]>([])
    }

    init(name: String = "world", rank: Int = 0, members: [Int], timeout: Duration = .seconds(60), log: Log = Log()) {
        self.name = name
        self.rank = rank
        self.members = members
        self.timeout = timeout
        self.log = log
    }

    func start(_ operation: CollectiveOperation, after stream: ApusTensor.Stream, layer: Int?) -> Event {
        note("\(OperationSignature(operation))")
        let event = Event()
        event.signal()
        return event
    }

    /// The part of `color` has the members from `color` on.
    func split(name: String, color: Int?, key: Int, timeout: Duration?) -> (any Collective)? {
        note("split \(name)")
        guard let color else { return nil }
        return FakeHost(
            name: "\(name).\(color)", rank: 0, members: Array(members[color...]), timeout: self.timeout, log: log)
    }

    func abort(reason: String) { note("abort: \(reason)") }

    private func note(_ call: String) { log.calls.withLock { $0.append(call) } }

    /// The calls since the last time.
    func takeCalls() -> [String] {
        log.calls.withLock { calls in
            defer { calls = [] }
            return calls
        }
    }
}
