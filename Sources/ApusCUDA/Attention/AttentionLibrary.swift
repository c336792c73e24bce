import CApusDrivers

/// cuDNN on one device.
// Sendable: the table and the handle never change; whoever gives the handle work does so under a lock (FusedAttention).
final class AttentionLibrary: @unchecked Sendable {
    let functions: apus_cudnn_table
    /// As `cudnnGetVersion` has it: 91400 is 9.14.0.
    let number: Int
    let handle: apus_dnn_handle

    /// The oldest whose graphs of attention are known to be whole: 9.10 computed wrong ones.
    static let loader = LibraryLoader(
        library: "cuDNN", names: String(cString: apus_cudnn_names), needed: LibraryVersion(9, 11))

    /// A handle whose work goes to `stream`.
    ///
    /// - Throws: ``LibraryProblem`` where the library is too old; ``CUDAError``.
    init(_ stream: CUDAStream, functions: apus_cudnn_table) throws {
        self.functions = functions
        number = functions.version()
        try AttentionLibrary.loader.check(LibraryVersion(cudnn: number))
        try stream.context.makeCurrent()
        var created: apus_dnn_handle?
        try AttentionLibrary.check(functions, functions.create(&created), "cudnnCreate")
        guard let created else { preconditionFailure("cudnnCreate made no handle") }
        handle = created
        try check(functions.set_stream(handle, stream.handle), "cudnnSetStream")
    }

    deinit { _ = functions.destroy(handle) }

    /// Throws what a call's code stands for, in the library's own words, unless that is success.
    @inline(__always)
    func check(
        _ code: Int32, _ call: @autoclosure () -> String, file: StaticString = #fileID, line: Int = #line
    ) throws(CUDAError) {
        if code != 0 { try AttentionLibrary.check(functions, code, call(), file: file, line: line) }
    }

    private static func check(
        _ functions: apus_cudnn_table, _ code: Int32, _ call: String, file: StaticString = #fileID, line: Int = #line
    ) throws(CUDAError) {
        guard code != 0 else { return }
        var text = [CChar](repeating: 0, count: 1024)
        functions.last_error(&text, text.count)
        let words = String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        throw CUDAError(
            call: call, code: Int(code), name: String(cString: functions.error_name(code)),
            explanation: words.split(whereSeparator: \.isNewline).joined(separator: "; "), file: file, line: line)
    }
}

extension LibraryVersion {
    /// 91400 is 9.14.
    init(cudnn number: Int) { self.init(number / 10_000, number % 10_000 / 100) }
}
