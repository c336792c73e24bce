/// Why a library that a CUDA device needs cannot be used.
public enum LibraryProblem: Error, Sendable, Equatable {
    /// There is no file of any of its names; `reason` is the loader's.
    case missing(library: String, needed: String, reason: String)
    /// The file has not all functions that are used.
    case incomplete(library: String, needed: String, file: String, function: String)
    /// The file is older than what is needed.
    case tooOld(library: String, needed: String, found: String)
    /// The driver knows no device.
    case noDevice
    /// There is no device of this ordinal, but `count` others.
    case noSuchDevice(ordinal: Int, count: Int)
}

extension LibraryProblem: CustomStringConvertible {
    /// One line: which, what was found, what is needed.
    public var description: String {
        switch self {
        case .missing(let library, let needed, let reason):
            "\(library) was not found (\(reason)); needed is \(needed) or later\(source(of: library))"
        case .incomplete(let library, let needed, let file, let function):
            "\(library) in \(file) has no \(function); needed is \(needed) or later\(source(of: library))"
        case .tooOld(let library, let needed, let found):
            "\(library) is version \(found); needed is \(needed) or later\(source(of: library))"
        case .noDevice:
            "the CUDA driver finds no device; see nvidia-smi, and CUDA_VISIBLE_DEVICES"
        case .noSuchDevice(let ordinal, let count):
            "there is no CUDA device \(ordinal): the driver finds \(count), from 0 to \(count - 1)"
        }
    }
    /// Where a library comes from that the driver and the CUDA toolkit do not bring.
    private func source(of library: String) -> String {
        guard library == NCCLLibrary.loader.library else { return "" }
        return " (Debian and Ubuntu, from NVIDIA's packages: apt-get install libnccl2)"
    }
}
