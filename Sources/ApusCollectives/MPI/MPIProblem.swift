/// Why a process cannot join the ranks that it was started among.
public enum MPIProblem: Error, Sendable, Equatable {
    /// There is no file of Open MPI's name; `reason` is the loader's.
    case missing(reason: String)
    /// The file has not all functions that are used.
    case incomplete(file: String, function: String)
    /// The file is another MPI, or another version.
    case unsupported(found: String)
    /// Ranks were started by something that Open MPI does not hear of.
    case otherLauncher(String)
    /// A call of the library failed.
    case failed(function: String, text: String)
    /// The ranks cannot reach the watchdog of rank 0.
    case unwatched(reason: String)
    /// Not all ranks came to the start within the time-out; those known to be absent, if any.
    case incompleteStart(after: Duration, absent: [Int])
}

extension MPIProblem: CustomStringConvertible {
    /// One line: what was found, and what would work.
    public var description: String {
        switch self {
        case .missing(let reason):
            """
            Open MPI was not found (\(reason)); install it (Debian and Ubuntu: apt-get install openmpi-bin), \
            or put the folder of its libmpi.so.40 on LD_LIBRARY_PATH
            """
        case .incomplete(let file, let function):
            "\(file) has no \(function); needed is Open MPI 4 or 5 (Debian and Ubuntu: apt-get install openmpi-bin)"
        case .unsupported(let found):
            "libmpi.so.40 is '\(found)'; needed is Open MPI 4 or 5 (Debian and Ubuntu: apt-get install openmpi-bin)"
        case .otherLauncher(let words):
            "\(words); start the ranks with Open MPI's mpirun, or with srun --mpi=pmix"
        case .failed(let function, let text): "Open MPI's \(function) failed: \(text)"
        case .unwatched(let reason):
            "rank 0 cannot be reached for the watch over ranks (\(reason)); let the machines connect to each other by TCP"
        case .incompleteStart(let time, let absent):
            absent.isEmpty
                ? "not all ranks came to the start within \(time); look for ranks that never began, on other machines too"
                : """
                not all ranks came to the start within \(time): missing \
                \(absent.map { "rank \($0)" }.joined(separator: ", ")), which never began or failed before it could say so
                """
        }
    }
}
