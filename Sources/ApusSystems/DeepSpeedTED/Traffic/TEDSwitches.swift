import ApusParallel
public import ApusTraining

/// The mechanisms of DeepSpeed-TED that change what ranks send each other, each on or off.
public struct TEDSwitches: Sendable, Hashable {
    /// Blocks run again in backward. Key `training.checkpointing`.
    public var checkpointing: Bool
    /// Duplicate-token dropping (section 5.1). Key `layout.drop_duplicates`.
    public var dropsDuplicates: Bool
    /// Communication-aware checkpointing (section 5.2). Key `layout.keep_collectives`.
    public var keepsCollectives: Bool
    /// A sum of which each rank keeps a part is one reduce-scatter. Key `layout.fuse_reduce_scatter`.
    public var fusesReduceScatter: Bool

    /// All off, unless told otherwise.
    public init(
        checkpointing: Bool = false, dropsDuplicates: Bool = false, keepsCollectives: Bool = false,
        fusesReduceScatter: Bool = false
    ) {
        self.checkpointing = checkpointing
        self.dropsDuplicates = dropsDuplicates
        self.keepsCollectives = keepsCollectives
        self.fusesReduceScatter = fusesReduceScatter
    }

    /// All sixteen.
    public static let all: [TEDSwitches] = (0..<16).map { bits in
        TEDSwitches(
            checkpointing: bits & 8 != 0, dropsDuplicates: bits & 4 != 0, keepsCollectives: bits & 2 != 0,
            fusesReduceScatter: bits & 1 != 0)
    }

    /// The mechanisms one after the other, under checkpointing: none, DTD, DTD fused, CAC, all.
    public static let mechanisms: [(name: String, switches: TEDSwitches)] = [
        ("baseline", TEDSwitches(checkpointing: true)),
        ("DTD", TEDSwitches(checkpointing: true, dropsDuplicates: true)),
        ("DTD, fused", TEDSwitches(checkpointing: true, dropsDuplicates: true, fusesReduceScatter: true)),
        ("CAC", TEDSwitches(checkpointing: true, keepsCollectives: true)),
        (
            "all",
            TEDSwitches(checkpointing: true, dropsDuplicates: true, keepsCollectives: true, fusesReduceScatter: true)
        ),
    ]

    /// How often a block runs its forward's collectives in a step.
    public var forwardRuns: Int { checkpointing && !keepsCollectives ? 2 : 1 }

    /// The switches of a recipe.
    public init(_ recipe: Recipe) {
        self.init(
            checkpointing: recipe.training.checkpointing, dropsDuplicates: recipe.parallel.dropsDuplicates,
            keepsCollectives: recipe.parallel.keepsCollectives, fusesReduceScatter: recipe.parallel.fusesReduceScatter)
    }

    /// The recipe with these switches.
    public func applied(to recipe: Recipe) -> Recipe {
        var recipe = recipe
        recipe.training.checkpointing = checkpointing
        recipe.parallel.dropsDuplicates = dropsDuplicates
        recipe.parallel.keepsCollectives = keepsCollectives
        recipe.parallel.fusesReduceScatter = fusesReduceScatter
        return recipe
    }
}

extension TEDSwitches: CustomStringConvertible {
    /// `checkpointing, DTD, CAC`; `none` of none.
    public var description: String {
        let names = [
            checkpointing ? "checkpointing" : nil, dropsDuplicates ? "DTD" : nil, keepsCollectives ? "CAC" : nil,
            fusesReduceScatter ? "fused reduce-scatter" : nil,
        ].compactMap(\.self)
        return names.isEmpty ? "none" : names.joined(separator: ", ")
    }
}
