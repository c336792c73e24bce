/// What ranks with the same parameters divide among them instead of each holding all (ZeRO, Rajbhandari et al. 2020,
/// section 5; DeepSpeed-TED section 3.2): the data group for what is no expert, the expert-data group for experts.
public enum ZeROStage: Int, Sendable, CaseIterable, Comparable {
    /// Nothing.
    case none = 0
    /// The optimizer's state: each rank steps its share of the parameters, and all collect the weights.
    case optimizerState = 1
    /// The sums of the gradients too: those of a layer are whole only while its backward runs, in every micro-batch.
    case gradients = 2

    public static func < (left: ZeROStage, right: ZeROStage) -> Bool { left.rawValue < right.rawValue }
}
