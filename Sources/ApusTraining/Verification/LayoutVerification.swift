public import ApusCollectives
import ApusData
public import ApusKernels
import ApusParallel

/// A recipe's first batches on its layout and on one rank: what `apus verify layout` runs.
public enum LayoutVerification {
    /// Compares the layout of `recipe` on the ranks of `world`, or, where that is one rank alone, on as many in this
    /// process as the layout asks for. Every rank gets the findings.
    ///
    /// - Parameters:
    ///   - threads: Threads of each rank.
    ///   - device: Where each of several ranks runs; `nil` for the processor.
    /// - Throws: ``LayoutError``, ``DataError``, ``NonFiniteError``, ``CollectiveError``, ``TensorError``.
    public static func run(
        _ recipe: Recipe, on world: any Collective, threads: Int, device: (any Backend)? = nil
    ) throws -> LayoutFindings {
        var recipe = recipe
        recipe.training.evaluateEvery = 0
        let stream = try TrainingData(recipe).stream
        let size = recipe.training.batch
        let batches = try (0..<LayoutReference.steps).map { try stream.sequences($0 * size..<($0 + 1) * size) }
        guard world.size == 1 else {
            let layout = try recipe.layout(ranks: world.size)
            let reference = try LayoutReference(
                recipe, for: layout, batches: batches, threads: threads, on: device)
            return try LayoutComparison(
                recipe, reference: reference, over: recipe.parallel.groups(layout, world: world), threads: threads,
                on: device)()
        }
        let wanted = recipe.parallel.layout
        let layout = try recipe.layout(ranks: wanted.tensor * (wanted.data ?? 1))
        let reference = try LayoutReference(recipe, for: layout, batches: batches, threads: threads)
        let fixed = recipe
        return try InProcess.run(ranks: layout.ranks, timeout: .seconds(recipe.parallel.timeout)) { world in
            try LayoutComparison(
                fixed, reference: reference, over: fixed.parallel.groups(layout, world: world), threads: threads)()
        }[0]
    }
}
