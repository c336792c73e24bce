import ApusCollectives
import ApusExperts
import ApusNN
import ApusTensor

// Shape letters: F expert width, E experts.

extension TensorPartition {
    /// What this rank holds of the `count` experts of `layer`.
    ///
    /// - Throws: ``PartitionError/experts(count:ranks:layer:)``, and what finding the layer's expert group throws.
    func expertShare(of count: Int, layer: Int) throws -> ExpertShare {
        guard let ranks = try expertGroup?(layer) else { return ExpertShare(place: 0, degree: 1, experts: count) }
        guard count.isMultiple(of: ranks.size) || ranks.size.isMultiple(of: count) else {
            throw PartitionError.experts(count: count, ranks: ranks.size, layer: layer)
        }
        return ExpertShare(place: ranks.rank, degree: ranks.size, experts: count)
    }

    /// What this rank holds of an expert's matrix: its slice of F, of which it has a part where the tensor group divides
    /// experts.
    ///
    /// The parameters are those of ``Cut/expertHidden(dimension:unit:layer:experts:)``.
    ///
    /// - Throws: ``PartitionError``, and what finding the layer's expert group throws.
    func expertHolding(
        of name: String, _ shape: Shape, _ dimension: Int, unit: Int, layer: Int, experts count: Int
    ) throws -> Holding {
        let share = try expertShare(of: count, layer: layer)
        let (units, kind) = (shape[dimension] / unit, unit == 1 ? "hidden units" : "blocks of \(unit) hidden units")
        let ranks = experts.dividesExperts ? group.size : 1
        guard units.isMultiple(of: ranks) else {
            throw PartitionError.notDivisible(parameter: name, units: kind, count: units, ranks: ranks)
        }
        let parts = share.slices * ranks
        guard units.isMultiple(of: parts) else {
            throw PartitionError.slices(
                parameter: name, units: kind, count: units / ranks, slices: share.slices, experts: count)
        }
        let sharing = Sharing(overTensorRanks: overTensorRanks(), expertDegree: try expertGroup?(layer).size ?? 1)
        guard parts > 1 else { return Holding(sharing: sharing) }
        let part = share.slice * ranks + (experts.dividesExperts ? group.rank : 0)
        let width = shape[dimension] / parts
        return Holding(
            shard: Shard(dimension: dimension, range: part * width..<(part + 1) * width), sharing: sharing)
    }

    /// What the ranks of the tensor group have of an expert.
    private func overTensorRanks() -> Sharing.OverTensorRanks {
        if group.size == 1 || experts.dividesExperts || expertGroupsSpanTensorRanks { return .divided }
        // Ranks that hold the same whole slices share out their rows, if rows go anywhere at all.
        return expertGroup == nil ? .same : .partial
    }
}
