public import ApusModels
public import ApusParallel

/// One training run as a value: what a recipe file describes once every default is filled in.
///
/// A recipe is read from YAML with ``init(contentsOf:overrides:)`` or ``init(yaml:file:overrides:)``, which refuse
/// unknown keys, wrong types and impossible combinations before any work starts, and is written back whole by
/// ``resolvedYAML()``. Keys are listed in ``RecipeKeys``.
public struct Recipe: Sendable, Equatable {
    /// Seed of every random stream of the run.
    public var seed: UInt64
    /// The model.
    public var model: ModelConfiguration
    /// The text and how it is cut.
    public var data: DataConfiguration
    /// Steps, optimizer and evaluation.
    public var training: TrainingConfiguration
    /// What is learned from beside the text; `nil` for the text alone.
    public var distillation: DistillationConfiguration?
    /// How the run is divided over ranks.
    public var parallel: ParallelConfiguration
    /// What is written, and how often.
    public var output: OutputConfiguration

    /// A recipe of these parts.
    ///
    /// Nothing is checked here: combinations are checked where text is read.
    public init(
        seed: UInt64 = 0, model: ModelConfiguration, data: DataConfiguration, training: TrainingConfiguration,
        distillation: DistillationConfiguration? = nil, parallel: ParallelConfiguration = ParallelConfiguration(),
        output: OutputConfiguration = OutputConfiguration()
    ) {
        self.seed = seed
        self.model = model
        self.data = data
        self.training = training
        self.distillation = distillation
        self.parallel = parallel
        self.output = output
    }

    /// Reads the file at `path`.
    ///
    /// - Parameters:
    ///   - path: a YAML file of at most 1 MB.
    ///   - overrides: `dotted.key=value` each, applied in order before anything is checked; the value is YAML, and an
    ///     empty one or `null` takes the key away.
    /// - Throws: every problem found, up to ten.
    public init(contentsOf path: String, overrides: [String] = []) throws(Recipe.Error) {
        try self.init(yaml: try RecipeFile.text(of: path), file: path, overrides: overrides)
    }

    /// Reads `yaml`; `file` is what messages call it.
    ///
    /// - Throws: every problem found, up to ten.
    public init(yaml: String, file: String = "recipe", overrides: [String] = []) throws(Recipe.Error) {
        let log = FindingLog(file: file)
        guard var root = SourceNode(yaml: yaml, log: log) else { throw log.error }
        for text in overrides { root.apply(override: text, log: log) }
        let recipe = RecipeReader(log: log).recipe(root)
        guard let recipe, log.isEmpty else { throw log.error }
        self = recipe
    }
}
