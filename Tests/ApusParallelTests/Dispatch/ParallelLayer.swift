import ApusCollectives
import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport

@testable import ApusParallel

// Shape letters: T tokens, D model width, F expert width, E experts, K choices per token.

/// A MoE layer to be computed by one rank and by many: configuration, tokens, and how it is run.
struct LayerCase: Sendable, CustomStringConvertible {
    var name: String
    var configuration: MoEConfiguration
    /// Lengths of the sequences that each rank of the expert group holds; taken in turn.
    var lengths: [[Int]] = [[5, 3], [7], [1, 2], [4, 4, 6]]
    var chunks = 1
    /// Added to the first column of the router, which multiplies an input that is 4 everywhere.
    var favours: [Int: Float] = [:]
    var width = 6

    var description: String { name }

    func lengths(of rank: Int) -> [Int] { lengths[rank % lengths.count] }
    func tokens(of rank: Int) -> Int { lengths(of: rank).reduce(0, +) }
    func firstToken(of rank: Int) -> Int { (0..<rank).reduce(0) { $0 + tokens(of: $1) } }
}

/// What a rank's experts are of the whole, and their width: part `part` of `parts`.
struct HeldExperts {
    var experts: Range<Int>
    var part = 0
    var parts = 1
}

/// How a case is run on many ranks.
struct WorldShape: Sendable, CustomStringConvertible {
    var expertRanks: Int
    var tensorRanks = 1
    var options = ExpertParallelOptions()
    var isCheckpointed = false
    var keeping: KeptOutputs = []
    var schedule = BackwardSchedule.reverse
    /// For a hierarchical all-to-all.
    var ranksPerNode: Int?
    /// Whether one expert group is made of all ranks, and not one for each place in the tensor groups.
    var spansTensor = false
    /// Whether there is no backward.
    var evaluates = false

    var ranks: Int { expertRanks * tensorRanks }
    var expertDegree: Int { spansTensor ? ranks : expertRanks }
    var description: String {
        """
        \(expertRanks) x \(tensorRanks), drops \(options.dropsDuplicates), divides \(options.dividesExperts)\
        \(ranksPerNode.map { ", \($0) on a node" } ?? "")\(spansTensor ? ", one group" : "")
        """
    }
}

/// The result of one rank.
struct RankResult: Sendable {
    let output: [Float]
    let inputGradient: [Float]
    /// By name, with the range of the dimension that it was cut along.
    let gradients: [String: (values: [Float], shard: Shard?)]
    let traffic: CollectiveLedger
    let messages: MessageLedger
}

/// One rank's layer, its parameters beginning as parts of the whole.
struct ParallelLayer {
    let backend: CPUBackend
    let store: ParameterStore
    let layer: MoELayer

    init(_ item: LayerCase, _ share: HeldExperts, dispatcher: any Dispatcher) throws {
        let configuration = item.configuration
        let (width, hidden) = (item.width, configuration.width)
        backend = CPUBackend(threadCount: 1)
        var all: [Parameter] = []
        func declare(
            _ name: String, _ extents: Int..., role: ParameterRole = .dense, shard: Shard? = nil
        ) -> Parameter {
            let parameter = Parameter(
                name, Shape(extents), role: role, initializer: .normal(deviation: 0.6), shard: shard)
            all.append(parameter)
            return parameter
        }
        func dense(_ name: String, _ hidden: Int) -> FeedForward {
            let input = declare("\(name).input", hidden * configuration.activation.inputsPerOutput, width)
            return FeedForward(
                input: input, output: declare("\(name).output", width, hidden), activation: configuration.activation)
        }
        let part = hidden / share.parts * share.part..<hidden / share.parts * (share.part + 1)
        func shard(_ dimension: Int) -> Shard? { share.parts > 1 ? Shard(dimension: dimension, range: part) : nil }
        let cosine = configuration.router.cosine.map {
            CosineProjection(
                projection: declare("projection", $0.width, width, role: .router),
                temperature: declare("temperature", 1, role: .router), floor: $0.floor)
        }
        let nodes = configuration.router.nodes.map {
            NodeGate(weight: declare("nodes", $0, width, role: .router))
        }
        let router = TopKRouter(
            weight: declare("gate", configuration.experts, configuration.router.cosine?.width ?? width, role: .router),
            cosine: cosine, nodes: nodes, selectionBias: nil,
            choices: configuration.choices, configuration: configuration.router, policy: configuration.policy,
            isPadded: configuration.bank == .padded, losses: configuration.losses)
        let names = configuration.activation.inputsPerOutput == 2 ? ["gate", "up"] : ["up"]
        let inputs = share.experts.flatMap { expert in
            names.map { declare("\(expert).\($0)", hidden, width, role: .expert, shard: shard(0)) }
        }
        let outputs = share.experts.map { declare("\($0).down", width, hidden, role: .expert, shard: shard(1)) }
        let matrices = ExpertMatrices(inputs: inputs, outputs: outputs, activation: configuration.activation)
        let shared = configuration.sharedWidth > 0 ? dense("shared", configuration.sharedWidth) : nil
        let residual =
            configuration.isResidual
            ? ResidualExpert(
                expert: dense("residual", hidden), coefficient: declare("coefficient", 2, width, role: .router),
                bias: declare("coefficient.bias", 2, role: .router)) : nil
        let bank: any ExpertBank =
            configuration.bank == .blockSparse
            ? BlockSparseBank(matrices, blockSize: configuration.blockSize) : GroupedBank(matrices)
        layer = MoELayer(
            layer: 0, router: router, dispatcher: dispatcher, bank: bank, shared: shared, residual: residual,
            chunks: item.chunks, dropout: configuration.dropout)
        store = try ParameterStore(all, backend: backend, precision: .f32, isTrained: true)
        try store.initialize(seed: 1, backend: backend)
        try router.weight.withWeights(on: .cpu) { weights in
            var values = weights.floats()
            for (expert, favour) in item.favours { values[expert * width] += favour }
            weights.assign(values)
        }
    }

    /// Forward and backward over the sequences from `first` on.
    func run(
        _ item: LayerCase, expertRanks: [Int], totalTokens: Int, _ world: WorldShape,
        _ traffic: CollectiveLedger = CollectiveLedger(), _ messages: MessageLedger = MessageLedger()
    ) throws -> RankResult {
        let lengths = expertRanks.flatMap(item.lengths(of:))
        let (first, tokens) = (item.firstToken(of: expertRanks[0]), lengths.reduce(0, +))
        func values(_ seed: UInt64) throws -> Tensor {
            let all = randomValues(totalTokens * item.width, seed: seed)
            let own = all[first * item.width..<(first + tokens) * item.width]
            return try backend.allocator.tensor(Array(own), Shape(tokens, item.width))
        }
        let x = try values(7)
        var elements = x.floats()
        for token in 0..<tokens { elements[token * item.width] = 4 }
        x.assign(elements)
        let layout = try TokenLayout.sequences(lengths, firstGlobalToken: first, backend: backend)
        let tape = Tape(backend: backend, isRecording: !world.evaluates)
        let input = tape.leaf(x)
        let trace = RoutingTrace()
        var isFirst = true
        let body: (Tape, [Variable]) throws -> [Variable] = { tape, inputs in
            let context = MoEContext(
                forward: ForwardContext(tape: tape, layout: layout, trainingStep: 1, seed: 3),
                trace: isFirst ? trace : trace.replay(), globalTokens: totalTokens)
            isFirst = false
            return [try layer(inputs[0], context).hidden]
        }
        let hidden =
            try world.isCheckpointed
            ? tape.checkpoint("block", inputs: [input], keeping: world.keeping, body: body)[0] : body(tape, [input])[0]
        let output = hidden.tensor.floats()
        try tape.addRoot(hidden, seed: values(8))
        try tape.backward(schedule: world.schedule)
        var gradients: [String: (values: [Float], shard: Shard?)] = [:]
        for parameter in store.parameters {
            gradients[parameter.name] = (try parameter.gradient()?.floats() ?? [], parameter.shard)
        }
        return RankResult(
            output: output, inputGradient: tape.gradient(of: input)?.floats() ?? [], gradients: gradients,
            traffic: traffic, messages: messages)
    }
}

extension LayerCase {
    /// The whole on one rank: all tokens that `expertRanks` ranks would hold.
    func onOneRank(_ expertRanks: Int) throws -> RankResult {
        let share = HeldExperts(experts: 0..<configuration.experts)
        return try ParallelLayer(self, share, dispatcher: LocalDispatcher()).run(
            self, expertRanks: Array(0..<expertRanks), totalTokens: firstToken(of: expertRanks),
            WorldShape(expertRanks: 1))
    }

    /// On the ranks of a world, tensor innermost; results by rank.
    func onRanks(_ world: WorldShape, delay: TransferDelay = .none) throws -> [RankResult] {
        try InProcess.run(ranks: world.ranks, delay: delay, timeout: .seconds(20)) { collective in
            let (ledger, messages) = (CollectiveLedger(), MessageLedger())
            let counted = MessageCounter(CountingCollective(collective, in: ledger), in: messages)
            let (rank, place) = (collective.rank / world.tensorRanks, collective.rank % world.tensorRanks)
            guard let group = try counted.split(name: "expert", color: world.spansTensor ? 0 : place),
                let tensor = try counted.split(name: "tensor", color: rank)
            else { preconditionFailure("every rank has a color") }
            let dispatcher = ExpertParallelDispatcher(
                experts: configuration.experts, group: group,
                nodes: try world.ranksPerNode.flatMap { try HierarchicalAllToAll(over: group, ranksPerNode: $0) },
                tensor: tensor, options: world.options, layer: 0)
            let (share, divides) = (dispatcher.share, world.options.dividesExperts)
            let tensorParts = divides ? world.tensorRanks : 1
            let held = HeldExperts(
                experts: share.experts, part: share.slice * tensorParts + (divides ? place : 0),
                parts: share.slices * tensorParts)
            return try ParallelLayer(self, held, dispatcher: dispatcher).run(
                self, expertRanks: [rank], totalTokens: firstToken(of: world.expertRanks), world, ledger, messages)
        }
    }
}
