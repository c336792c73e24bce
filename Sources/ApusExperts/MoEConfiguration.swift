public import ApusKernels

/// How scores become a choice of experts and combine weights.
public struct RouterConfiguration: Sendable, Equatable {
    /// What turns logits into scores.
    public enum Scoring: String, Sendable, CaseIterable {
        /// Softmax over all experts, then the K highest (MegaBlocks, DeepSpeed, Mixtral, OLMoE).
        case softmaxThenTopK = "softmax-top-k"
        /// The K highest logits, then softmax over those (Shazeer et al. 2017, ScMoE section 3).
        case topKThenSoftmax = "top-k-softmax"
        /// Sigmoid of each logit, K highest after a selection bias (DeepSeek-V3).
        case sigmoid
    }

    /// What turns logits into scores.
    public var scoring: Scoring
    /// Whether a token's K weights are divided by their sum.
    public var renormalizes: Bool
    /// Factor on all weights (DeepSeek's `routed_scaling_factor`).
    public var weightScale: Float
    /// The router's input is multiplied by uniform draws from `1 - jitter ..< 1 + jitter` in training; 0 for none.
    public var jitter: Float
    /// Whether Gumbel noise joins the logits for the choice alone, in training (DeepSpeed's RSample).
    public var gumbel: Bool
    /// How much the selection bias moves each step towards balance (auxiliary-loss-free balancing); sigmoid only.
    public var biasRate: Float
    /// Tokens and experts are compared by their angle; `nil` for a linear router.
    public var cosine: CosineConfiguration?
    /// Which groups of experts a token may use; `nil` for all experts.
    public var groupLimit: GroupLimit?
    /// N of a two-level router (SMILE): a gate chooses one of the nodes, on which E / N experts lie, and another K of its
    /// experts; `nil` for a router of one level. The balance loss is then one for each level.
    public var nodes: Int?
    /// How the gate goes from many experts to one; `nil` for a gate that chooses K from the first step on.
    public var annealing: DenseToSparse?

    /// Softmax over all experts, top K, weights as they are.
    public init(
        scoring: Scoring = .softmaxThenTopK, renormalizes: Bool = false, weightScale: Float = 1, jitter: Float = 0,
        gumbel: Bool = false, biasRate: Float = 0, cosine: CosineConfiguration? = nil, groupLimit: GroupLimit? = nil,
        nodes: Int? = nil,
        annealing: DenseToSparse? = nil
    ) {
        self.scoring = scoring
        self.renormalizes = renormalizes
        self.weightScale = weightScale
        self.jitter = jitter
        self.gumbel = gumbel
        self.biasRate = biasRate
        self.cosine = cosine
        self.groupLimit = groupLimit
        self.nodes = nodes
        self.annealing = annealing
    }

    /// The groups that a token is held to: those of ``groupLimit``, or its node.
    var effectiveGroupLimit: GroupLimit? {
        nodes.map { GroupLimit(groups: $0, chosen: 1, score: .sum) } ?? groupLimit
    }
}

/// Which routed tokens an expert computes.
public enum TokenPolicy: Sendable, Equatable {
    /// All of them (MegaBlocks).
    case dropless
    /// At most C each in training: `C = max(ceil(factor * K * T / E), minimum)`, T the tokens of a routing group.
    ///
    /// A factor of 0 is the smallest C that drops nothing of the group, and a negative one the same but no more than that of
    /// its magnitude (Tutel's dynamic capacity); both make the host read how many tokens each expert got. `evaluation` is the
    /// factor where a loss is evaluated (Switch Transformers has 1 and 2), `nil` for none; generation never drops.
    case capacity(factor: Float, minimum: Int, order: DropOrder, evaluation: Float? = nil)

    /// Who stays when an expert gets more than its capacity.
    public enum DropOrder: String, Sendable, CaseIterable {
        /// The first in the sequence; all first choices before all second choices (GShard, DeepSpeed).
        case position
        /// A uniform draw for each choice decides (random token selection, Z-code M3 section 3). Nothing is drawn outside
        /// training, where this is ``position``.
        case random
        /// The highest score (DeepSpeed's `drop_policy: probs`).
        case probability
        /// All first choices before all second choices, and among them the tokens whose best expert has the highest
        /// probability (batch-prioritised routing, Riquelme et al. 2021 section 4).
        case importance

        /// Most choices for each token that can be ordered by importance: a choice's rank is a power of two in a number.
        public static let mostImportanceChoices = 11
    }
}

/// Which formulation computes the experts.
public enum ExpertBankKind: String, Sendable, CaseIterable {
    /// Rows sorted by expert, uneven groups, nothing padded.
    case grouped
    /// A (E, C, D) buffer filled through index tables. Needs a capacity.
    case padded
    /// Products with one block-sparse matrix of all experts' hidden activations (MegaBlocks). Needs an expert width of
    /// whole blocks.
    case blockSparse = "block-sparse"
}

/// The losses that keep a router in order, each with its coefficient; 0 for none.
public struct RouterLosses: Sendable, Equatable {
    /// Over which scores the balance loss is formed.
    public enum BalanceScope: String, Sendable, CaseIterable {
        /// Each layer and routing group for itself; sum of f = 1 (Switch Transformers section 2.2).
        case layer
        /// Scores of all layers pooled, masked tokens left out; sum of f = K (what Hugging Face models compute).
        case pooled
    }

    /// Coefficient of the load-balance loss, `E * sum over experts of f * P`.
    public var balance: Float
    /// Its scope.
    public var scope: BalanceScope
    /// Coefficient of the z-loss, the mean of `logSumExp(logits)^2` (ST-MoE section 3).
    public var z: Float
    /// Coefficient of the importance loss, the squared coefficient of variation of the summed weights (Shazeer et al. 2017).
    public var importance: Float

    /// Coefficients, all 0 by default.
    public init(balance: Float = 0, scope: BalanceScope = .layer, z: Float = 0, importance: Float = 0) {
        self.balance = balance
        self.scope = scope
        self.z = z
        self.importance = importance
    }
}

/// One mixture-of-experts layer.
public struct MoEConfiguration: Sendable, Equatable {
    /// Most experts that a layer may have: what the choice of the highest scores takes.
    public static let mostExperts = 1024

    /// E, experts.
    public var experts: Int
    /// K, experts of each token.
    public var choices: Int
    /// F, width of each expert.
    public var width: Int
    /// Non-linearity of the experts, the shared and the residual expert.
    public var activation: Activation
    /// How experts are chosen.
    public var router: RouterConfiguration
    /// Which choices are computed.
    public var policy: TokenPolicy
    /// How they are computed.
    public var bank: ExpertBankKind
    /// Rows and columns of a block of the block-sparse bank.
    public var blockSize: Int
    /// What keeps the router in order.
    public var losses: RouterLosses
    /// Width of an expert that every token goes through, its output added; 0 for none.
    public var sharedWidth: Int
    /// How that output is added.
    public var sharedCombination: SharedCombination
    /// From where the routed experts read; `nil` for the block's own state after attention.
    public var shortcut: ShortcutConfiguration?
    /// Whether a dense expert of the same width runs beside, mixed by a learned two-way softmax (PR-MoE, DeepSpeed-MoE
    /// section 3.1).
    public var isResidual: Bool
    /// Share of the experts' hidden activations that is dropped in training (expert dropout, Switch Transformers section
    /// 2.4); 0 for none.
    public var dropout: Float
    /// The earlier layer whose parameters this one computes with, router and experts; `nil` for parameters of its own.
    public var parametersOf: Int?

    /// Experts that compute a token outside training: one where a gate is annealed, 2 K where it is used twice, else K.
    public var servedChoices: Int { router.annealing == nil ? leastExperts : 1 }

    /// Experts that a token goes through in training, so that a layer has at least as many: 2 K where the gate is used twice,
    /// else K.
    public var leastExperts: Int { choices * passes }

    /// How often the experts compute each token: for two states of it, or for one.
    public var passes: Int { shortcut?.isDual == true ? 2 : 1 }

    /// A layer of `experts` experts `width` wide, `choices` of them for each token; everything else optional.
    public init(
        experts: Int, choices: Int, width: Int, activation: Activation = .swiglu,
        router: RouterConfiguration = RouterConfiguration(), policy: TokenPolicy = .dropless,
        bank: ExpertBankKind = .grouped, blockSize: Int = 128, losses: RouterLosses = RouterLosses(),
        sharedWidth: Int = 0, sharedCombination: SharedCombination = .sum, shortcut: ShortcutConfiguration? = nil,
        isResidual: Bool = false, dropout: Float = 0, parametersOf: Int? = nil
    ) {
        self.experts = experts
        self.choices = choices
        self.width = width
        self.activation = activation
        self.router = router
        self.policy = policy
        self.bank = bank
        self.blockSize = blockSize
        self.losses = losses
        self.sharedWidth = sharedWidth
        self.sharedCombination = sharedCombination
        self.shortcut = shortcut
        self.isResidual = isResidual
        self.dropout = dropout
        self.parametersOf = parametersOf
    }
}
