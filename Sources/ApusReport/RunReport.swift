import ApusTensor
import ApusTraining

/// One run, read for a report: its curves, the load of every expert, and its summary.
///
/// However many steps it has, no more is kept than a page shows.
public struct RunReport: Sendable {
    /// What the page calls it.
    public internal(set) var name: String
    /// The figures of the table.
    public let summary: RunSummary
    /// Why the recipe could not be read, if it could not.
    public let recipeProblem: String?

    /// The middle step of each bucket.
    let steps: [Int]
    /// The curves by the key that the page's program knows them by.
    let curves: [String: Curve]
    /// Whether a bucket holds more than one step.
    let isBucketed: Bool
    /// Held-out losses, each at its step.
    let heldOut: [(step: Int, value: Double)]
    /// The load of every expert.
    let loads: LoadHistory
    /// The first and last step of each column of the loads.
    let columns: [(first: Int, last: Int)]

    /// How much of a run is kept.
    public struct Limits: Sendable {
        /// Points of a curve.
        public var points: Int
        /// Cells of all heat maps of the run.
        public var cells: Int

        /// Limits with which a page of `runs` runs stays below 2 MB.
        public init(runs: Int) {
            points = max(100, min(1000, 3000 / max(runs, 1)))
            cells = 200_000 / max(runs, 1)
        }
    }

    /// Reads the run in the folder `path`, or the metrics file `path`.
    ///
    /// - Throws: ``ReportError``, ``FileError``.
    public init(path: String, limits: Limits) throws {
        let place = try RunPlace(path)
        let history = try MetricsHistory(path: place.metrics)
        name = place.name
        let buckets = Buckets(steps: history.steps.count, limit: limits.points)
        var collector = RunCollector(buckets: buckets, cells: limits.cells, steps: history.steps)
        try history.read { collector.add($1, at: $0) }

        steps = (0..<buckets.count).map { bucket in
            let places = buckets.places(of: bucket)
            return history.steps[(places.lowerBound + places.upperBound - 1) / 2]
        }
        isBucketed = buckets.count < buckets.steps
        curves = collector.curves.filter { !$0.value.isEmpty }
        heldOut = collector.heldOut(limit: limits.points)
        loads = collector.loads
        let columnBuckets = loads.buckets
        columns = (0..<columnBuckets.count).map { bucket in
            let places = columnBuckets.places(of: bucket)
            return (history.steps[places.lowerBound], history.steps[places.upperBound - 1])
        }
        let recipe = place.recipe()
        recipeProblem = recipe.problem
        summary = RunSummary(collector.totals, steps: history.steps, recipe: recipe.value)
    }
}

/// Where the files of a run are, from what a user calls it.
private struct RunPlace {
    let folder: String
    let metrics: String

    init(_ path: String) throws {
        var path = path
        while path.count > 1, path.hasSuffix("/") { path.removeLast() }
        if path.hasSuffix(".jsonl") {
            metrics = path
            let parts = path.split(separator: "/", omittingEmptySubsequences: false).dropLast()
            folder = parts.isEmpty ? "." : parts.joined(separator: "/")
        } else {
            folder = path
            metrics = "\(path)/metrics.jsonl"
        }
        // Below what is no folder there is nothing, too.
        guard (try? FolderTree.kind(metrics)) != nil else { throw ReportError.noRun(path: path) }
    }

    /// The last part of the folder that says something.
    var name: String { folder.split(separator: "/").last { $0 != "." && $0 != ".." }.map(String.init) ?? folder }

    /// The recipe beside the metrics; a run is reported on without one, too.
    func recipe() -> (value: Recipe?, problem: String?) {
        let path = "\(folder)/recipe.yaml"
        do {
            guard try FolderTree.kind(path) != nil else { return (nil, "'\(path)' is missing") }
            return (try Recipe(contentsOf: path), nil)
        } catch {
            return (nil, "\(error)")
        }
    }
}
