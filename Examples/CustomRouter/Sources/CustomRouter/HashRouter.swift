import Apus

/// A router that learns nothing: every token id has its expert, fixed before training.
///
/// Ids are dealt out so that all experts get about the same share of the text: the balanced assignment of hash layers
/// (Roller et al. 2021, "Hash Layers For Large Sparse Models").
/// Routers see hidden states and places, not ids, so whoever runs a batch first puts its ids into `batch`.
final class HashRouter: Router {
    let experts: Int
    let parameters: [Parameter] = []
    /// The ids of the global batch that is about to run.
    var batch: [Int32] = []
    private var expertOfID: [Int32]

    /// The most frequent id first, each goes to the expert that has got the least text so far.
    init(experts: Int, vocabulary: Int, text: some Sequence<Int32>) {
        self.experts = experts
        var frequency = Array(repeating: 0, count: vocabulary)
        for id in text { frequency[Int(id)] += 1 }
        expertOfID = Array(repeating: 0, count: vocabulary)
        var load = Array(repeating: 0, count: experts)
        for id in frequency.indices.sorted(by: { (frequency[$1], $0) < (frequency[$0], $1) }) {
            let expert = load.indices.min { load[$0] < load[$1] } ?? 0
            expertOfID[id] = Int32(expert)
            load[expert] += frequency[id]
        }
    }

    /// (T, D) to one choice a token, of weight 1.
    func route(_ x: Variable, layer: Int, _ context: MoEContext) throws -> Routing {
        let layout = context.forward.layout
        let allocator = context.forward.tape.backend.allocator
        let ids = batch[layout.firstGlobalToken..<layout.firstGlobalToken + layout.tokenCount]
        let shape = Shape(ids.count, 1)
        return try .make(experts: experts, layer: layer, context) {
            try allocator.tensor(ids.map { expertOfID[Int($0)] }, shape)
        } weigh: { _ in
            .constant(try allocator.tensor(Array(repeating: Float(1), count: ids.count), shape))
        }
    }
}
