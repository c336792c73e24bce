import ApusExperts
import ApusModels
public import ApusParallel

extension Recipe {
    /// What a layout divides: the sizes of the model and the batch that its degrees have to fit.
    public var workload: Workload {
        Workload(
            heads: model.heads, keyValueHeads: model.keyValueHeads, vocabulary: model.vocabulary,
            layers: model.feedForward.map { part in
                switch part {
                case .dense(let width): return .dense(width: width)
                case .moe(let moe):
                    let dense = [moe.sharedWidth > 0 ? moe.sharedWidth : nil, moe.isResidual ? moe.width : nil]
                    return .experts(moe.experts, width: moe.width, dense: dense.compactMap(\.self))
                }
            },
            batch: Workload.Batch(
                sequences: training.batch, microBatch: training.microBatch, group: training.balanceGroup))
    }

    /// The layout of a run on `ranks` ranks.
    ///
    /// - Throws: ``LayoutError``, which names the nearest layout that works.
    public func layout(ranks: Int) throws(LayoutError) -> Layout {
        let layout = try parallel.layout.layout(ranks: ranks, for: workload)
        for layer in model.feedForward.indices {
            guard let owner = model.moe(layer: layer)?.parametersOf else { continue }
            let (own, shared) = (layout.expertDegree(layer: layer), layout.expertDegree(layer: owner))
            guard own != shared else { continue }
            throw LayoutError(
                key: "layout.expert",
                reason: "is \(own) for layer \(layer), whose experts are those of layer \(owner), with \(shared)",
                alternative: "use \(shared) for both, or model.experts.share 1", nearest: nil)
        }
        guard !parallel.sequenceParallel || layout.tensor == 1 || model.patches == nil else {
            throw LayoutError(
                key: "layout.sequence_parallel", reason: "is true, and the tokens of images are not divided over ranks",
                alternative: "use layout.sequence_parallel false", nearest: nil)
        }
        let length = data.sequenceLength
        guard parallel.sequenceParallel, !length.isMultiple(of: layout.tensor) else { return layout }
        let nearest = max((length + layout.tensor / 2) / layout.tensor, 1) * layout.tensor
        throw LayoutError(
            key: "layout.sequence_parallel",
            reason: "is true, and \(layout.tensor) tensor ranks do not divide the \(length) tokens of a sequence",
            alternative: "use data.sequence_length \(nearest), or layout.sequence_parallel false", nearest: nil)
    }
}
