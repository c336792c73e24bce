import CApusDrivers

/// The driver: the functions of libcuda, each call checked where it is made.
// Sendable: the table never changes, and the driver's functions may be called from any thread.
public final class CUDADriver: @unchecked Sendable {
    let functions: apus_cuda_table
    /// The newest CUDA that it serves.
    public let version: LibraryVersion

    static let loader = LibraryLoader(
        library: "the NVIDIA driver", names: String(cString: apus_cuda_names), needed: LibraryVersion(12, 0))

    /// The driver of this machine, looked for on first use.
    public static let shared: Result<CUDADriver, LibraryProblem> = Result { () throws(LibraryProblem) in
        try CUDADriver(functions: loader.table(apus_cuda_load).functions)
    }

    /// A driver of the given functions.
    init(functions: apus_cuda_table) throws(LibraryProblem) {
        self.functions = functions
        var number: Int32 = 0
        guard functions.initialize(0) == APUS_CU_SUCCESS, functions.driver_version(&number) == APUS_CU_SUCCESS else {
            throw .noDevice
        }
        version = LibraryVersion(Int(number) / 1000, Int(number) % 1000 / 10)
        try CUDADriver.loader.check(version)
    }

    /// Throws what a call's code stands for, unless that is success.
    @inline(__always)
    func check(
        _ code: Int32, _ call: @autoclosure () -> String, file: StaticString = #fileID, line: Int = #line
    ) throws(CUDAError) {
        if code != APUS_CU_SUCCESS { throw error(code, call(), file: file, line: line) }
    }

    private func error(_ code: Int32, _ call: String, file: StaticString, line: Int) -> CUDAError {
        var (name, text): (UnsafePointer<CChar>?, UnsafePointer<CChar>?)
        _ = functions.error_name(code, &name)
        _ = functions.error_text(code, &text)
        return CUDAError(
            call: call, code: Int(code), name: name.map { String(cString: $0) } ?? "unknown error",
            explanation: text.map { String(cString: $0) } ?? "", file: file, line: line)
    }
}
