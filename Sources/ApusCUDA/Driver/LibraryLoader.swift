import CApusDrivers

/// Opens one library, and says in its own words why it cannot.
struct LibraryLoader {
    /// What people call it: `the NVIDIA driver`.
    let library: String
    /// File names, separated by spaces, the newest first.
    let names: String
    /// The oldest version that will do.
    let needed: LibraryVersion

    /// The names of files whose version is not above `major`: what a newer library makes, an older driver cannot load.
    func upTo(major: Int) -> LibraryLoader {
        let fitting = names.split(separator: " ").filter { name in
            name.split(separator: ".").last.flatMap { Int($0) }.map { $0 <= major } ?? true
        }
        return LibraryLoader(library: library, names: fitting.joined(separator: " "), needed: needed)
    }

    /// The table that `load` fills, and the file it came from.
    func table<Table>(
        _ load: (
            _ table: UnsafeMutablePointer<Table>, _ names: UnsafePointer<CChar>, _ text: UnsafeMutablePointer<CChar>,
            _ size: Int
        ) -> apus_library_status
    ) throws(LibraryProblem) -> (functions: Table, file: String) {
        let table = UnsafeMutablePointer<Table>.allocate(capacity: 1)
        defer { table.deallocate() }
        var text = [CChar](repeating: 0, count: 512)
        let status = load(table, names, &text, text.count)
        let words = String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        switch status {
        case APUS_LIBRARY_LOADED: return (table.move(), words)
        case APUS_LIBRARY_INCOMPLETE:
            throw .incomplete(library: library, needed: "\(needed)", file: names, function: words)
        default: throw .missing(library: library, needed: "\(needed)", reason: words)
        }
    }

    /// Refuses a version that is too old.
    func check(_ found: LibraryVersion) throws(LibraryProblem) {
        if found < needed { throw .tooOld(library: library, needed: "\(needed)", found: "\(found)") }
    }
}
