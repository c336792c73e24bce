import CApusDrivers
import Glibc
import Synchronization

@testable import ApusCUDA

/// A cuDNN that computes nothing, and notes the descriptors that it is given.
enum FakeAttention {
    struct Descriptor {
        let kind: Int32
        /// Values by attribute: integers, codes, flags and handles alike.
        var values: [Int32: [Int]] = [:]
        var isFinished = false
    }

    /// One run of a plan.
    struct Run: Equatable {
        /// Addresses by the tensor's number; of numbers handed over, not what they are.
        var addresses: [Int: Int]
        var scale: Float
    }

    struct State {
        var descriptors: [Int: Descriptor] = [:]
        /// Graphs that a kernel was looked for.
        var graphs: [Int] = []
        var runs: [Run] = []
        /// Plans that were compiled, and that were read.
        var compiled = 0
        var kept = 0
        /// What finishing a compiled plan answers, one for each proposal.
        var answers: [Int32] = [0]
        var workspaceBytes = 1000
        var version = 91_400
        var creates = true
    }

    static let state = Mutex(State())
    static func reset() { state.withLock { $0 = State() } }

    private static func number(_ handle: OpaquePointer) -> Int { Int(bitPattern: handle) }

    static let text = Array("a plan".utf8)

    static var table: apus_cudnn_table {
        apus_cudnn_table(
            create: { handle in
                handle.pointee = FakeDriver.handle()
                return FakeAttention.state.withLock(\.creates) ? 0 : 1001
            },
            destroy: { _ in 0 },
            set_stream: { _, _ in 0 },
            descriptor_create: { kind, descriptor in
                let created = FakeDriver.handle()
                descriptor.pointee = created
                FakeAttention.state.withLock { $0.descriptors[Int(bitPattern: created)] = Descriptor(kind: kind) }
                return 0
            },
            descriptor_destroy: { descriptor in
                FakeAttention.state.withLock { $0.descriptors[FakeAttention.number(descriptor)] = nil }
                return 0
            },
            descriptor_finish: { descriptor in FakeAttention.finish(FakeAttention.number(descriptor)) },
            descriptor_set: { descriptor, attribute, type, count, values in
                let numbers = FakeAttention.numbers(type, Int(count), values)
                FakeAttention.state.withLock {
                    $0.descriptors[FakeAttention.number(descriptor)]?.values[attribute] = numbers
                }
                return 0
            },
            descriptor_get: { _, attribute, _, wanted, count, values in
                FakeAttention.get(attribute, Int(wanted), count, values)
            },
            execute: { _, _, pack in
                FakeAttention.run(FakeAttention.number(pack))
                return 0
            },
            version: { FakeAttention.state.withLock(\.version) },
            error_name: { code in
                UnsafePointer(strdup(code == 3000 ? "CUDNN_STATUS_NOT_SUPPORTED" : "CUDNN_STATUS_INTERNAL_ERROR"))
            },
            last_error: { text, size in
                strncpy(text, "no engine\nfor this graph", size)
            })
    }

    /// An attribute's values as integers.
    private static func numbers(_ type: Int32, _ count: Int, _ values: UnsafeRawPointer) -> [Int] {
        switch type {
        case APUS_DNN_VALUE_BOOLEAN, APUS_DNN_VALUE_CHARACTERS:
            (0..<count).map { Int(values.load(fromByteOffset: $0, as: UInt8.self)) }
        case APUS_DNN_VALUE_I64, APUS_DNN_VALUE_DESCRIPTOR, APUS_DNN_VALUE_POINTER, APUS_DNN_VALUE_HANDLE:
            (0..<count).map { values.load(fromByteOffset: 8 * $0, as: Int.self) }
        default: (0..<count).map { Int(values.load(fromByteOffset: 4 * $0, as: Int32.self)) }
        }
    }

    private static func finish(_ number: Int) -> Int32 {
        state.withLock { state in
            state.descriptors[number]?.isFinished = true
            guard let descriptor = state.descriptors[number] else { return 2000 }
            if descriptor.kind == APUS_DNN_HEURISTICS {
                state.graphs += descriptor.values[APUS_DNN_HEURISTICS_GRAPH] ?? []
            }
            guard descriptor.kind == APUS_DNN_PLAN else { return 0 }
            if let kept = descriptor.values[APUS_DNN_PLAN_TEXT] {
                guard kept.map({ UInt8($0) }) == text else { return 2000 }
                state.kept += 1
                return 0
            }
            state.compiled += 1
            return state.answers[(state.compiled - 1) % max(state.answers.count, 1)]
        }
    }

    private static func get(
        _ attribute: Int32, _ wanted: Int, _ count: UnsafeMutablePointer<Int64>?, _ values: UnsafeMutableRawPointer?
    ) -> Int32 {
        state.withLock { state in
            switch attribute {
            case APUS_DNN_PLAN_WORKSPACE_BYTES: values?.storeBytes(of: state.workspaceBytes, as: Int.self)
            case APUS_DNN_PLAN_TEXT:
                count?.pointee = Int64(text.count)
                for (index, byte) in text.enumerated() where index < wanted {
                    values?.storeBytes(of: byte, toByteOffset: index, as: UInt8.self)
                }
            default: count?.pointee = Int64(state.answers.count)
            }
            return 0
        }
    }

    private static func run(_ pack: Int) {
        state.withLock { state in
            let values = state.descriptors[pack]?.values ?? [:]
            var addresses: [Int: Int] = [:]
            for (tensor, address) in zip(
                values[APUS_DNN_VARIANT_PACK_IDS] ?? [], values[APUS_DNN_VARIANT_PACK_ADDRESSES] ?? [])
            {
                addresses[tensor] = address
            }
            let scale = UnsafePointer<Float>(bitPattern: addresses[AttentionRole.scale.rawValue] ?? 0)?.pointee
            state.runs.append(Run(addresses: addresses, scale: scale ?? .nan))
        }
    }
}
