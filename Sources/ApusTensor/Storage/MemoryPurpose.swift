/// What an allocation is for: the account that its bytes are counted under.
public enum MemoryPurpose: Int, Sendable, CaseIterable, CustomStringConvertible {
    /// Model weights in the type that the products read.
    case parameters
    /// Accumulated parameter gradients.
    case gradients
    /// Master weights and moments.
    case optimizerState
    /// Values that the tape keeps for backward, and their gradients.
    case activations
    /// Values that live within one op.
    case workspace
    /// Keys and values of sequences being generated.
    case keyValueCache
    /// Token batches and everything else that comes from outside.
    case data
    /// Copies of weights and state that a checkpoint is written from while training goes on.
    case checkpoint

    /// For messages: `optimizer state`.
    public var description: String {
        switch self {
        case .parameters: "parameters"
        case .gradients: "gradients"
        case .optimizerState: "optimizer state"
        case .activations: "activations"
        case .workspace: "workspace"
        case .keyValueCache: "key-value cache"
        case .data: "data"
        case .checkpoint: "checkpoint copy"
        }
    }

    /// The recipe keys that, lowered, shrink this account; empty when none does.
    public var keysToLower: String {
        switch self {
        case .parameters, .gradients: "model.layers, model.width, model.experts.count"
        case .optimizerState: "model.experts.count, or training.precision: bf16-pure"
        case .activations, .workspace: "data.sequence_length, training.micro_batch, or training.checkpointing: true"
        case .keyValueCache: "--max-tokens, or the number of prompts"
        case .data: "training.batch"
        case .checkpoint: "model.layers, model.width, model.experts.count"
        }
    }
}

/// Bytes held now and at the highest moment, by purpose.
public struct MemoryStatistics: Sendable {
    /// Bytes of live storages by ``MemoryPurpose``'s raw value.
    public var live: [Int]
    /// Highest value that each entry of ``live`` has had since the last reset.
    public var peak: [Int]
    /// Bytes of all live storages.
    public var totalLive: Int
    /// Highest value of ``totalLive`` since the last reset.
    public var totalPeak: Int
    /// Bytes held for reuse by freed storages.
    public var cached: Int
    /// Highest sum of live and cached bytes since the last reset: what was taken from the system at most.
    public var heldPeak: Int
    /// How often memory was asked of the system. A steady training step adds nothing here.
    public var systemAllocations: Int

    init() {
        live = Array(repeating: 0, count: MemoryPurpose.allCases.count)
        peak = live
        totalLive = 0
        totalPeak = 0
        cached = 0
        heldPeak = 0
        systemAllocations = 0
    }

    /// Live bytes of one purpose.
    public subscript(purpose: MemoryPurpose) -> Int { live[purpose.rawValue] }
}
