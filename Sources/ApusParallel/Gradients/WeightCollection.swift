import ApusCollectives
public import ApusKernels
public import ApusNN
public import ApusTensor

extension ParallelGroups {
    /// Collects the weights of which each rank has stepped its share (ZeRO-1, Rajbhandari et al. 2020, section 5.1);
    /// ops given from now on come after that.
    ///
    /// - Throws: ``CollectiveError``, ``TensorError``.
    public func collectWeights(of store: ParameterStore, backend: any Backend) throws {
        var underWay: [Tensor] = []
        for group in store.groups {
            let holders = holders(of: group.sharing)
            guard holders.size > 1 else { continue }
            for part in group.gradientParts {
                let share = try backend.empty(Shape(part.ownRange.count), group.weights.dtype, .workspace)
                try backend.copy(group.weights[part.ownRange], into: share)
                underWay.append(
                    try holders.startAllGather(
                        share, into: group.weights[part.range], after: backend.stream,
                        layer: store.parameters[part.firstParameter].layer))
            }
        }
        for weights in underWay { _ = try backend.arrived(weights) }
    }

    /// The gradients whose squares this rank adds to the norm's sum: each element of the model's gradient is counted on one
    /// rank of the world.
    ///
    /// - Throws: ``TensorError/outOfMemory(requested:purpose:statistics:limit:)``
    public func countedGradients(of store: ParameterStore) throws -> [Tensor] {
        try store.groups.filter { $0.sharing.overTensorRanks == .divided || place.tensor == 0 }.flatMap { group in
            try group.gradientParts.map { try $0.ownGradients() }
        }
    }
}
