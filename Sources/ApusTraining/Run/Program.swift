import ApusTensor

/// The program that runs.
enum Program {
    /// Tells builds apart: the executable's size and checksum; empty where the system does not say which file that is.
    static let identity: String = {
        guard let digest = try? FileDigest(ofFile: "/proc/self/exe") else { return "" }
        return "\(digest.count) bytes, checksum \(digest.checksum)"
    }()
}
