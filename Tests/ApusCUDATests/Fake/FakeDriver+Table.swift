import CApusDrivers
import Glibc
import Synchronization

@testable import ApusCUDA

private let deviceName = "Fake H100"

private func move(_ source: UInt, to target: UInt, _ bytes: Int) {
    guard let from = UnsafeRawPointer(bitPattern: source), let to = UnsafeMutableRawPointer(bitPattern: target) else {
        return
    }
    to.copyMemory(from: from, byteCount: bytes)
}

extension FakeDriver {
    /// The functions of libcuda.
    static var table: apus_cuda_table {
        apus_cuda_table(
            initialize: { _ in FakeDriver.note("initialize") },
            driver_version: { version in
                version.pointee = FakeDriver.state.withLock(\.version)
                return 0
            },
            error_name: { code, text in
                text.pointee = UnsafePointer(strdup(code == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR_\(code)"))
                return 0
            },
            error_text: { _, text in
                text.pointee = UnsafePointer(strdup("an illegal memory access was encountered"))
                return 0
            },
            device_count: { count in
                count.pointee = FakeDriver.state.withLock(\.deviceCount)
                return 0
            },
            device: { device, ordinal in
                device.pointee = ordinal
                return 0
            },
            device_name: { name, size, _ in
                strncpy(name, deviceName, Int(size))
                return 0
            },
            device_attribute: { value, key, _ in
                value.pointee = FakeDriver.state.withLock { $0.attributes[key] } ?? 0
                return 0
            },
            device_memory: { bytes, _ in
                bytes.pointee = FakeDriver.state.withLock(\.capacity)
                return 0
            },
            primary_context_retain: { context, _ in
                context.pointee = FakeDriver.handle()
                return 0
            },
            primary_context_release: { _ in FakeDriver.note("primary_context_release") },
            set_current: { _ in 0 },
            allocate: { address, bytes in
                let block = FakeDriver.allocate("allocate", bytes)
                address.pointee = UInt64(block.address)
                return block.code
            },
            free: { address in FakeDriver.free("free", UInt(address)) },
            allocate_host: { address, bytes, _ in
                let block = FakeDriver.allocate("allocate_host", bytes)
                address.pointee = UnsafeMutableRawPointer(bitPattern: block.address)
                return block.code
            },
            free_host: { address in FakeDriver.free("free_host", UInt(bitPattern: address)) },
            copy_to_device: { target, source, bytes, _ in
                FakeDriver.note("copy_to_device") { _ in
                    move(UInt(bitPattern: source), to: UInt(target), bytes)
                    return 0
                }
            },
            copy_to_host: { target, source, bytes, _ in
                FakeDriver.note("copy_to_host") { _ in
                    move(UInt(source), to: UInt(bitPattern: target), bytes)
                    return 0
                }
            },
            copy: { target, source, bytes, _ in
                FakeDriver.note("copy") { _ in
                    move(UInt(source), to: UInt(target), bytes)
                    return 0
                }
            },
            stream_create: { stream, _ in
                stream.pointee = FakeDriver.handle()
                return 0
            },
            stream_create_urgent: { stream, _, priority in
                stream.pointee = FakeDriver.handle()
                return FakeDriver.note("stream_create_urgent \(priority)")
            },
            stream_destroy: { _ in FakeDriver.note("stream_destroy") },
            stream_synchronize: { _ in
                FakeDriver.note("stream_synchronize") { state in
                    state.pendingEvents = []
                    return 0
                }
            },
            stream_wait_event: { _, _, _ in FakeDriver.note("stream_wait_event") },
            event_create: { event, flags in
                let created = FakeDriver.handle()
                event.pointee = created
                FakeDriver.state.withLock { state in
                    if flags == APUS_CU_EVENT_DEFAULT { state.timedEvents.insert(Int(bitPattern: created)) }
                }
                return 0
            },
            event_destroy: { _ in 0 },
            event_record: { event, _ in
                FakeDriver.note("event_record") { state in
                    if state.holdsEvents { state.pendingEvents.insert(Int(bitPattern: event)) }
                    return 0
                }
            },
            event_query: { event in
                FakeDriver.state.withLock { state in
                    state.pendingEvents.contains(Int(bitPattern: event)) ? APUS_CU_NOT_READY : 0
                }
            },
            event_synchronize: { event in
                FakeDriver.note("event_synchronize") { state in
                    // Work ends in its order: what was recorded before is over too.
                    state.pendingEvents = state.pendingEvents.filter { $0 > Int(bitPattern: event) }
                    return 0
                }
            },
            event_elapsed: { milliseconds, begin, end in
                FakeDriver.state.withLock { state in
                    let events: Set = [Int(bitPattern: begin), Int(bitPattern: end)]
                    guard state.timedEvents.isSuperset(of: events) else { return 400 }
                    guard state.pendingEvents.isDisjoint(with: events) else { return APUS_CU_NOT_READY }
                    milliseconds.pointee = state.elapsed
                    return 0
                }
            },
            module_load: { module, image in
                // A made-up code starts with a letter of its own.
                guard image.load(as: UInt8.self) == UInt8(ascii: "C") else { return 200 }
                module.pointee = FakeDriver.handle()
                return FakeDriver.note("module_load")
            },
            module_unload: { _ in FakeDriver.note("module_unload") },
            module_function: { function, _, name in
                let created = FakeDriver.handle()
                function.pointee = created
                let text = String(cString: name)
                FakeDriver.state.withLock { $0.kernelNames[Int(bitPattern: created)] = text }
                return FakeDriver.note("module_function \(text)")
            },
            function_set_attribute: { _, _, bytes in FakeDriver.note("function_set_attribute \(bytes)") },
            encode_tensor_map: { map, _, _, _, _, _, _, _, _, _, _, _ in
                map.initializeMemory(as: UInt8.self, repeating: 1, count: 128)
                return FakeDriver.note("encode_tensor_map")
            },
            launch: { function, x, y, z, blockX, blockY, _, shared, _, _, _ in
                let name = FakeDriver.state.withLock { $0.kernelNames[Int(bitPattern: function)] ?? "?" }
                return FakeDriver.note("launch \(name) (\(x), \(y), \(z)) of (\(blockX), \(blockY)), \(shared) bytes")
            },
            stream_begin_capture: { _, _ in FakeDriver.note("stream_begin_capture") },
            stream_end_capture: { _, graph in
                graph.pointee = FakeDriver.handle()
                return FakeDriver.note("stream_end_capture")
            },
            graph_nodes: { _, _, count in
                count.pointee = 3
                return 0
            },
            graph_instantiate: { runnable, _, _ in
                runnable.pointee = FakeDriver.handle()
                return FakeDriver.note("graph_instantiate")
            },
            graph_launch: { _, _ in FakeDriver.note("graph_launch") },
            graph_destroy: { _ in FakeDriver.note("graph_destroy") },
            graph_destroy_runnable: { _ in FakeDriver.note("graph_destroy_runnable") })
    }
}
