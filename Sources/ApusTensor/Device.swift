/// Where a tensor's bytes live and where the ops that read them run.
public enum Device: Sendable, Hashable, CustomStringConvertible {
    /// The host's processor and memory.
    case cpu
    /// The CUDA device with this ordinal.
    case cuda(Int)

    /// For messages: `cpu`, `cuda:0`.
    public var description: String {
        switch self {
        case .cpu: "cpu"
        case .cuda(let ordinal): "cuda:\(ordinal)"
        }
    }
}
