package import ApusTensor

/// The files in which several writers put the tensors of one folder, each writer its own, numbered through.
///
/// All follow from what each writer has, so that writers who know that need not talk. Of one writer they are the files
/// of ``ShardedSafetensorsWriter``.
package struct SharedShards: Sendable {
    private let base: String
    /// By writer, in the order of their tensors.
    private let plans: [ShardPlan?]

    /// - Parameters:
    ///   - tensors: What each writer writes, in this order.
    ///   - base: "model" in the file names.
    ///   - maximumShardSize: Bytes of tensor data per file; a larger tensor gets a file of its own.
    ///   - path: For messages.
    /// - Throws: `invalidTensor`.
    package init(
        _ tensors: [[TensorSpec]], base: String, maximumShardSize: Int = 5_000_000_000, path: String
    ) throws(FileError) {
        var plans: [ShardPlan?] = []
        for tensors in tensors {
            plans.append(
                tensors.isEmpty ? nil : try ShardPlan(tensors, limit: maximumShardSize, base: base, path: path))
        }
        let count = plans.reduce(0) { $0 + ($1?.shards.count ?? 0) }
        var first = 1
        self.base = base
        self.plans = plans.map { plan in
            defer { first += plan?.shards.count ?? 0 }
            return plan?.renumbered(from: first, of: count, base: base)
        }
    }

    /// Each file of a writer, and the names of its tensors.
    package func files(of writer: Int) -> [(name: String, tensors: [String])] {
        (plans[writer]?.shards ?? []).map { ($0.name, $0.tensors.map(\.name)) }
    }

    /// The index over all files, which somebody has to write beside them; `nil` where one file needs none.
    package var index: (name: String, text: String)? {
        let plans = plans.compactMap(\.self)
        guard plans.reduce(0, { $0 + $1.shards.count }) > 1 else { return nil }
        return (ShardPlan.indexName(base), SafetensorsIndex.encode(plans))
    }

    /// Writes the files of a writer into a folder; `nil` when it has none.
    ///
    /// - Throws: what `SafetensorsWriter` throws.
    package func writer(_ writer: Int, folder: String) throws(FileError) -> ShardedSafetensorsWriter? {
        guard let plan = plans[writer] else { return nil }
        return try ShardedSafetensorsWriter(
            folder: withoutTrailingSlashes(folder), base: base, plan: plan, metadata: ["format": "pt"],
            writesIndex: false)
    }
}
