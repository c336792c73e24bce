import ApusParallel

/// Reads `layout`. Whether it fits the model, the batch and the ranks is known only when those are there:
/// ``LayoutConfiguration/layout(ranks:for:)``.
struct LayoutReader {
    let section: Section

    private static let mostRanks = 1 << 16

    func parallel() -> ParallelConfiguration {
        let pipeline = section.integer("pipeline", 1...Int.max, default: 1, example: 1)
        section.require(
            pipeline == 1, "pipeline", "is \(pipeline)", "this build has no pipelines; use 1 or remove the key")
        let expert = section.integers("expert", 1...Self.mostRanks, example: "2 or [1, 4]")
        let zero = section.integer("zero", 0...2, default: ZeROStage.optimizerState.rawValue, example: 1)
        return ParallelConfiguration(
            layout: LayoutConfiguration(
                tensor: section.integer("tensor", 1...Self.mostRanks, default: 1, example: 2),
                expert: expert.map { $0.isList ? .perLayer($0.values) : .uniform($0.values[0]) } ?? .uniform(1),
                data: section.optionalInteger("data", 1...Self.mostRanks, default: nil, example: 2),
                expertTensor: section.flag("expert_tensor", default: true),
                order: section.choice("order", default: LayoutConfiguration.Order.expertBeforeData)),
            zero: ZeROStage(rawValue: zero) ?? .optimizerState,
            sequenceParallel: section.flag("sequence_parallel", default: false),
            dropsDuplicates: section.flag("drop_duplicates", default: true),
            fusesReduceScatter: section.flag("fuse_reduce_scatter", default: true),
            keepsCollectives: section.flag("keep_collectives", default: true),
            ranksPerNode: section.optionalInteger("ranks_per_node", 1...Self.mostRanks, default: nil, example: 8),
            timeout: section.integer("timeout", 1...1_000_000, default: 300, example: 300))
    }
}

extension YAMLWriter {
    mutating func layout(_ parallel: ParallelConfiguration) {
        let layout = parallel.layout
        key("tensor", "\(layout.tensor)")
        switch layout.expert {
        case .uniform(let degree): key("expert", "\(degree)")
        case .perLayer(let degrees): key("expert", "\(degrees)")
        }
        if let data = layout.data { key("data", "\(data)") }
        key("expert_tensor", "\(layout.expertTensor)")
        key("order", layout.order.rawValue)
        key("zero", "\(parallel.zero.rawValue)")
        key("sequence_parallel", "\(parallel.sequenceParallel)")
        key("drop_duplicates", "\(parallel.dropsDuplicates)")
        key("fuse_reduce_scatter", "\(parallel.fusesReduceScatter)")
        key("keep_collectives", "\(parallel.keepsCollectives)")
        if let ranks = parallel.ranksPerNode { key("ranks_per_node", "\(ranks)") }
        key("timeout", "\(parallel.timeout)")
    }
}
