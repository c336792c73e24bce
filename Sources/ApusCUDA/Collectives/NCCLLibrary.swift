import CApusDrivers

/// NCCL: the functions of libnccl, each call checked where it is made.
// Sendable: the table never changes, and the functions may be called from any thread.
final class NCCLLibrary: @unchecked Sendable {
    let functions: apus_nccl_table
    let version: LibraryVersion

    /// Since 2.18 the configuration that is passed has all its fields.
    static let loader = LibraryLoader(
        library: "NCCL", names: String(cString: apus_nccl_names), needed: LibraryVersion(2, 18))

    /// The library of this machine, looked for on first use.
    static let shared: Result<NCCLLibrary, LibraryProblem> = Result { () throws(LibraryProblem) in
        try NCCLLibrary(functions: loader.table(apus_nccl_load).functions)
    }

    /// A library of the given functions.
    init(functions: apus_nccl_table) throws(LibraryProblem) {
        self.functions = functions
        var number: Int32 = 0
        _ = functions.version(&number)
        version = LibraryVersion(nccl: Int(number))
        try NCCLLibrary.loader.check(version)
    }

    /// Throws what a call's code stands for, unless that is success.
    func check(
        _ code: Int32, _ call: @autoclosure () -> String, of communicator: apus_nccl_communicator? = nil,
        file: StaticString = #fileID, line: Int = #line
    ) throws(CUDAError) {
        if code != APUS_NCCL_SUCCESS {
            throw CUDAError(
                call: call(), code: Int(code), name: String(cString: functions.error_text(code)),
                explanation: complaint(of: communicator), file: file, line: line)
        }
    }

    /// Runs `body`, whose operations begin together.
    ///
    /// - Throws: what `body` throws; ``CUDAError``. A group that was begun is ended whatever happens.
    func group(of communicator: apus_nccl_communicator, _ body: () throws(CUDAError) -> Void) throws(CUDAError) {
        try check(functions.group_start(), "ncclGroupStart", of: communicator)
        var failure: CUDAError?
        do throws(CUDAError) { try body() } catch { failure = error }
        let code = functions.group_end()
        if let failure { throw failure }
        try check(code, "ncclGroupEnd", of: communicator)
    }

    /// What the library last complained of, in one line.
    func complaint(of communicator: apus_nccl_communicator?) -> String {
        let text = functions.last_error(communicator).map { String(cString: $0) } ?? ""
        return text.split(whereSeparator: \.isNewline).joined(separator: "; ")
    }
}

extension LibraryVersion {
    /// 22803 is 2.28.3.
    init(nccl number: Int) { self.init(number / 10_000, number % 10_000 / 100) }
}
