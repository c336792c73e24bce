import CApusDrivers

/// NVRTC: the text of a kernel file to the machine code of one architecture.
// Sendable: the table never changes, and NVRTC may be called from any thread.
final class KernelCompiler: @unchecked Sendable {
    private let functions: apus_nvrtc_table
    /// The CUDA that it belongs to.
    let version: LibraryVersion

    static let loader = LibraryLoader(
        library: "NVRTC", names: String(cString: apus_nvrtc_names), needed: LibraryVersion(12, 0))

    /// The newest compiler whose code a driver of this version loads.
    convenience init(for driver: LibraryVersion) throws(LibraryProblem) {
        try self.init(functions: KernelCompiler.loader.upTo(major: driver.major).table(apus_nvrtc_load).functions)
    }

    init(functions: apus_nvrtc_table) throws(LibraryProblem) {
        self.functions = functions
        var (major, minor): (Int32, Int32) = (0, 0)
        _ = functions.version(&major, &minor)
        version = LibraryVersion(Int(major), Int(minor))
        try KernelCompiler.loader.check(version)
    }

    /// Everything but the text that the code depends on. `-default-device`: functions without a mark are the device's.
    static func options(_ architecture: String) -> [String] {
        ["--gpu-architecture=\(architecture)", "--std=c++17", "-default-device"]
    }

    /// The machine code of a file.
    ///
    /// - Parameters:
    ///   - more: options beyond those that make the code.
    ///   - noting: gets the compiler's report, which is empty unless an option or the text gives it something to say.
    /// - Throws: ``CUDAError``, with the compiler's report.
    func compile(
        _ file: KernelFile, headers: [KernelFile], architecture: String, options more: [String] = [],
        noting: ((String) -> Void)? = nil
    ) throws(CUDAError) -> [UInt8] {
        var program: apus_nvrtc_program?
        let texts: [UnsafePointer<CChar>?] = headers.map(\.text)
        let names = CStrings(headers.map(\.name))
        try check(
            functions.create_program(&program, file.text, file.name, Int32(headers.count), texts, names.pointers),
            "nvrtcCreateProgram")
        guard let program else { preconditionFailure("nvrtcCreateProgram made no program") }
        defer {
            var done: apus_nvrtc_program? = program
            _ = functions.destroy_program(&done)
        }
        let options = CStrings(KernelCompiler.options(architecture) + more)
        let code = functions.compile_program(program, Int32(options.pointers.count), options.pointers)
        try check(code, "nvrtcCompileProgram of \(file.name)", explanation: code == 0 ? "" : report(of: program))
        noting?(report(of: program))
        var size = 0
        try check(functions.cubin_size(program, &size), "nvrtcGetCUBINSize")
        var image = [CChar](repeating: 0, count: size)
        try check(functions.cubin(program, &image), "nvrtcGetCUBIN")
        return image.map { UInt8(bitPattern: $0) }
    }

    private func report(of program: apus_nvrtc_program) -> String {
        var size = 0
        guard functions.log_size(program, &size) == 0, size > 0 else { return "" }
        var text = [CChar](repeating: 0, count: size)
        _ = functions.log(program, &text)
        return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    private func check(
        _ code: Int32, _ call: @autoclosure () -> String, explanation: @autoclosure () -> String = "",
        file: StaticString = #fileID, line: Int = #line
    ) throws(CUDAError) {
        guard code != 0 else { return }
        throw CUDAError(
            call: call(), code: Int(code), name: String(cString: functions.error_name(code)),
            explanation: explanation(), file: file, line: line)
    }
}

/// Texts as C takes an array of them, alive as long as this is.
private final class CStrings {
    let pointers: [UnsafePointer<CChar>?]
    private let storage: [UnsafeMutableBufferPointer<CChar>]

    init(_ texts: [String]) {
        storage = texts.map { text in
            let bytes = UnsafeMutableBufferPointer<CChar>.allocate(capacity: text.utf8.count + 1)
            _ = bytes.initialize(from: text.utf8.map { CChar(bitPattern: $0) } + [0])
            return bytes
        }
        pointers = storage.map { UnsafePointer($0.baseAddress) }
    }

    deinit { for bytes in storage { bytes.deallocate() } }
}
