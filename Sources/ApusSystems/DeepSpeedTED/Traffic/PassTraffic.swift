// Shape letters: T tokens, D model width, E experts, K choices per token, R rows, P ranks of a tensor group.

/// What a part of a model sends in one pass of one rank, from the papers' account of each part. Every form below is the
/// sum over its arrows, each with its adjoint.
///
/// A checkpointed block runs its forward twice, and its collectives with it unless their outputs were kept
/// (DeepSpeed-TED section 5.2): ``total(runs:)``.
public struct PassTraffic: Sendable, Equatable {
    /// Of a forward run.
    public var forward = Traffic()
    /// Of the backward run, without the forward that it may begin with.
    public var backward = Traffic()

    /// A part that sends nothing.
    public init() {}

    /// The traffic of `runs` forward runs and a backward run.
    public func total(runs: Int) -> Traffic { forward * runs + backward }

    /// Both together.
    public static func + (left: PassTraffic, right: PassTraffic) -> PassTraffic {
        var sum = PassTraffic()
        sum.forward = left.forward + right.forward
        sum.backward = left.backward + right.backward
        return sum
    }
}

/// The sizes that a rank's pass has in every layer.
public struct PassSizes: Sendable, Equatable {
    /// T, tokens of the rank's pass: all ranks of a tensor group have the same.
    public let tokens: Int
    /// D.
    public let width: Int
    /// Bytes of an element of activations.
    public let elementBytes: Int
    /// P.
    public let tensor: Int

    /// Sizes of a pass.
    public init(tokens: Int, width: Int, elementBytes: Int, tensor: Int) {
        self.tokens = tokens
        self.width = width
        self.elementBytes = elementBytes
        self.tensor = tensor
    }

    /// Bytes of rows (R, D).
    func bytes(rows: Int) -> Int { rows * width * elementBytes }

    /// T, rounded up so that the tensor group's ranks have equal parts.
    var paddedTokens: Int { (tokens + tensor - 1) / tensor * tensor }
}

extension PassTraffic {
    /// A layer that the tensor group divides (attention, a dense feed-forward layer, a shared expert): one sum of (T,
    /// D) ends it, and one its gradient (Shoeybi et al. 2019).
    public static func dividedLayer(_ sizes: PassSizes) -> PassTraffic {
        var traffic = PassTraffic()
        guard sizes.tensor > 1 else { return traffic }
        traffic.forward.add(.tensor, .allReduce, bytes: sizes.bytes(rows: sizes.tokens))
        traffic.backward.add(.tensor, .allReduce, bytes: sizes.bytes(rows: sizes.tokens))
        return traffic
    }

    /// The embedding: one sum of (T, D). Its table needs no gradient of its input.
    public static func embedding(_ sizes: PassSizes) -> PassTraffic {
        var traffic = PassTraffic()
        guard sizes.tensor > 1 else { return traffic }
        traffic.forward.add(.tensor, .allReduce, bytes: sizes.bytes(rows: sizes.tokens))
        return traffic
    }

    /// The head: P + 1 numbers of each token make the loss, and one sum of (T, D) its gradient.
    public static func head(_ sizes: PassSizes) -> PassTraffic {
        var traffic = PassTraffic()
        guard sizes.tensor > 1 else { return traffic }
        traffic.forward.add(.tensor, .allReduce, bytes: sizes.tokens * (sizes.tensor + 1) * 4)
        traffic.backward.add(.tensor, .allReduce, bytes: sizes.bytes(rows: sizes.tokens))
        return traffic
    }

    /// The experts of a mixture of which every rank has its tensor part, so that no row leaves its rank: a sum of
    /// results ends them, and one of what they read its gradient. They read padded rows, or through an index the T
    /// tokens.
    public static func localExperts(_ sizes: PassSizes, _ load: RoutedLoad, isPadded: Bool) -> PassTraffic {
        var traffic = PassTraffic()
        guard sizes.tensor > 1 else { return traffic }
        traffic.forward.add(.tensor, .allReduce, bytes: sizes.bytes(rows: load.gathered))
        traffic.backward.add(
            .tensor, .allReduce, bytes: sizes.bytes(rows: isPadded ? load.gathered : sizes.tokens))
        return traffic
    }

    /// The experts of a mixture that the tensor group divides, without attention.
    ///
    /// Baseline: rows out, a sum of results, rows back; in backward the same. With ``TEDSwitches/dropsDuplicates`` rows
    /// are those of the rank's part, all-gathers stand around the experts, and one after the combination brings the
    /// parts together; the adjoint of a drop is an all-gather, that of an all-gather of replicated values is a drop.
    /// With ``TEDSwitches/fusesReduceScatter`` as well, both sums are reduce-scatters.
    ///
    /// - Parameters:
    ///   - load: The rows that move.
    ///   - isPadded: Whether rows are padded: then *rows* are dropped and gathered at the ends, E C of them. If not,
    ///     the T *tokens* are, and the K weights of each.
    public static func experts(
        _ sizes: PassSizes, _ load: RoutedLoad, isPadded: Bool, choices: Int, _ switches: TEDSwitches
    ) -> PassTraffic {
        var traffic = PassTraffic()
        if load.announced > 0 { traffic.forward.add(.expert, .numbers, bytes: load.announced * 4) }
        let exchanged = sizes.bytes(rows: load.sent) + sizes.bytes(rows: load.received)
        // Out and back; in backward back and out.
        traffic.forward.addPair(.expert, .allToAll, bytes: exchanged)
        traffic.backward.addPair(.expert, .allToAll, bytes: exchanged)
        guard sizes.tensor > 1 else { return traffic }
        let gathered = sizes.bytes(rows: load.gathered)
        let isScattered = switches.dropsDuplicates && switches.fusesReduceScatter
        let sum: Traffic.Operation = isScattered ? .reduceScatter : .allReduce
        traffic.forward.add(.tensor, sum, bytes: gathered)
        traffic.backward.add(.tensor, sum, bytes: gathered)
        guard switches.dropsDuplicates else { return traffic }
        // Into the experts, and the adjoint of the drop after them.
        traffic.forward.add(.tensor, .allGather, bytes: gathered)
        traffic.backward.add(.tensor, .allGather, bytes: gathered)
        if isPadded {
            let rows = sizes.bytes(rows: sizes.tensor * load.sent)
            traffic.forward.add(.tensor, .allGather, bytes: rows)
            traffic.backward.add(.tensor, .allGather, bytes: rows)
        } else {
            let tokens = sizes.bytes(rows: sizes.paddedTokens)
            traffic.forward.add(.tensor, .allGather, bytes: tokens)
            traffic.backward.add(.tensor, .allGather, bytes: tokens)
            traffic.backward.add(.tensor, .allGather, bytes: sizes.paddedTokens * choices * 4)
        }
        return traffic
    }
}

extension Traffic {
    /// Two calls that move `bytes` together.
    fileprivate mutating func addPair(_ group: Group, _ operation: Operation, bytes: Int) {
        add(group, operation, bytes: bytes)
        add(group, operation, bytes: 0)
    }
}
