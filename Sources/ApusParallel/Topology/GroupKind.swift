/// What a group of ranks is for.
public enum GroupKind: Sendable, Hashable {
    /// All ranks.
    case world
    /// Ranks that share each matrix and hold the same tokens: neighbours.
    case tensor
    /// Ranks that hold the same part of what is no expert, and different sequences.
    case data
    /// Ranks that divide one copy of a layer's experts among them; an all-to-all brings tokens to them.
    case expert(degree: Int)
    /// Ranks that hold the same experts, over which their gradients are added and their state is divided.
    case expertData(degree: Int)

    /// The name of its communicators: `tensor`, `data`, `expert4`, `expert-data4`.
    public var name: String {
        switch self {
        case .world: "world"
        case .tensor: "tensor"
        case .data: "data"
        case .expert(let degree): "expert\(degree)"
        case .expertData(let degree): "expert-data\(degree)"
        }
    }
}
