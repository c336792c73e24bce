import CApusDrivers
import Glibc
import Synchronization

@testable import ApusCUDA

/// A compiler whose code for any text is `Code`, unless it is told to refuse.
enum FakeCompiler {
    struct State {
        /// Files compiled.
        var compiled: [String] = []
        var refuses = false
        var version: (Int32, Int32) = (13, 0)
    }

    static let state = Mutex(State())
    static func reset() { state.withLock { $0 = State() } }

    /// A kernel file that is only a text.
    static let source = file("fake.cu", "the text", isHeader: false)

    static func file(_ name: String, _ text: String, isHeader: Bool) -> KernelFile {
        KernelFile(name: name, text: UnsafePointer(strdup(text)), count: text.utf8.count, isHeader: isHeader)
    }

    static var table: apus_nvrtc_table {
        apus_nvrtc_table(
            version: { major, minor in
                (major.pointee, minor.pointee) = FakeCompiler.state.withLock(\.version)
                return 0
            },
            create_program: { program, _, name, _, _, _ in
                let text = name.map { String(cString: $0) } ?? ""
                FakeCompiler.state.withLock { $0.compiled.append(text) }
                program.pointee = OpaquePointer(bitPattern: 1)
                return 0
            },
            destroy_program: { _ in 0 },
            compile_program: { _, _, _ in FakeCompiler.state.withLock { $0.refuses } ? 6 : 0 },
            log_size: { _, size in
                size.pointee = 24
                return 0
            },
            log: { _, text in
                strcpy(text, "line 3: expected a ';'")
                return 0
            },
            cubin_size: { _, size in
                size.pointee = 4
                return 0
            },
            cubin: { _, bytes in
                memcpy(bytes, "Code", 4)
                return 0
            },
            error_name: { _ in UnsafePointer(strdup("NVRTC_ERROR_COMPILATION")) })
    }
}
