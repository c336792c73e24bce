import CApusKernels

/// What a sequence of random draws is for. Two purposes never share a draw.
public enum RandomPurpose: UInt32, Sendable {
    /// Initial weights.
    case initialization = 1
    /// Multiplicative jitter of the router's input.
    case routerJitter
    /// Gumbel noise on the router's logits.
    case routerGumbel
    /// Ranks of random token selection.
    case tokenSelection
    /// Stochastic rounding of weights and moments.
    case stochasticRounding
    /// The order of training sequences.
    case dataOrder
    /// Sampling of generated tokens.
    case sampling
    /// The order in which a mixture's sources take turns.
    case sourceOrder
    /// Dropout of experts' hidden activations.
    case expertDropout
    /// What distinguishes experts that begin as copies of one layer.
    case expertNoise
    /// Which experts a random pruning keeps.
    case expertSelection
    /// The tokens of small synthetic tasks.
    case probe
}

/// Names one sequence of counter-based draws (Philox4x32-10): a draw is a pure function of the stream and its index.
///
/// Keyed by (seed, purpose, layer, step) and indexed by the element's place in the whole model or batch, so that cutting
/// the work over threads, micro-batches or ranks changes no draw.
public struct RandomStream: Sendable, Hashable {
    /// The run's seed.
    public let seed: UInt64
    /// `purpose << 16 | layer`.
    public let word0: UInt32
    /// The training step, or whatever else counts repetitions.
    public let word1: UInt32

    /// The stream of `purpose` in `layer` (below 65,536) at `step`.
    public init(seed: UInt64, purpose: RandomPurpose, layer: Int = 0, step: Int = 0) {
        precondition(layer >= 0 && layer < 1 << 16)
        self.seed = seed
        word0 = purpose.rawValue << 16 | UInt32(layer)
        word1 = UInt32(truncatingIfNeeded: step)
    }
}

extension RandomStream {
    /// The random word of element `index`: the same that fills draw from.
    public func word(at index: UInt64) -> UInt32 {
        apus_random_word(apus_random_stream(seed: seed, word0: word0, word1: word1), index)
    }
}
