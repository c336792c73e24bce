import CApusDrivers

/// The functions of Open MPI that are used, found at run time; for the one thread that calls them.
struct MPILibrary {
    let functions: apus_mpi_table
    /// Its name and version: `Open MPI v4.1.4`.
    let version: String

    /// Opens the first of the files `names`.
    init(names: String = String(cString: apus_mpi_names)) throws(MPIProblem) {
        let table = UnsafeMutablePointer<apus_mpi_table>.allocate(capacity: 1)
        defer { table.deallocate() }
        var text = [CChar](repeating: 0, count: 512)
        let status = apus_mpi_load(table, names, &text, text.count)
        switch status {
        case APUS_LIBRARY_LOADED: functions = table.move()
        case APUS_LIBRARY_INCOMPLETE: throw .incomplete(file: names, function: MPILibrary.words(text))
        default: throw .missing(reason: MPILibrary.words(text))
        }
        var version = [CChar](repeating: 0, count: Int(APUS_MPI_VERSION_TEXT_SIZE))
        var length: Int32 = 0
        let code = functions.version_text(&version, &length)
        let words = String(MPILibrary.words(version).prefix { $0 != "," && $0 != "\n" })
        guard code == APUS_MPI_SUCCESS, MPILibrary.isSupported(words) else { throw .unsupported(found: words) }
        self.version = words
    }

    /// Whether a library that calls itself so has the binary interface that the table declares.
    static func isSupported(_ version: String) -> Bool {
        ["Open MPI v4.", "Open MPI v5."].contains { version.hasPrefix($0) }
    }

    /// Throws unless `code` is success; `function` is for the message.
    func check(_ code: Int32, _ function: String) throws(MPIProblem) {
        if code != APUS_MPI_SUCCESS { throw .failed(function: function, text: errorText(code)) }
    }

    /// The library's words for a code.
    func errorText(_ code: Int32) -> String {
        var text = [CChar](repeating: 0, count: Int(APUS_MPI_ERROR_TEXT_SIZE))
        var length: Int32 = 0
        guard functions.error_text(code, &text, &length) == APUS_MPI_SUCCESS else { return "code \(code)" }
        return MPILibrary.words(text)
    }

    private static func words(_ text: [CChar]) -> String {
        String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
