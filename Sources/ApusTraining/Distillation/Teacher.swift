public import ApusExperts
public import ApusKernels
public import ApusModels
public import ApusNN
public import ApusParallel
public import ApusTensor

// Shape letters: T tokens, D the teacher's width.

/// A trained model that a student is held to (DeepSpeed-MoE section 4.2). It runs without a tape and without noise, on the
/// same ranks as the student.
public struct Teacher {
    /// The model, or this rank's part of it.
    public let model: Transformer
    /// How much it has to say, and until when.
    public let configuration: DistillationConfiguration

    /// Loads the teacher of a recipe, checked against the student before any weight is read.
    ///
    /// - Throws: ``DistillationError``; ``FileError`` and what else ``ModelFolder`` throws; ``TensorError`` when memory
    ///   runs out.
    public init(
        _ configuration: DistillationConfiguration, of recipe: Recipe, over groups: ParallelGroups?,
        backend: any Backend
    ) throws {
        let name = configuration.teacher
        let folder = try ModelFolder(RunFolder.model(at: name).folder)
        let sizes = folder.configuration.configuration
        guard sizes.vocabulary == recipe.model.vocabulary else {
            throw DistillationError.vocabulary(
                teacher: name, size: sizes.vocabulary, student: recipe.model.vocabulary)
        }
        guard sizes.patches == recipe.model.patches else { throw DistillationError.patches(teacher: name) }
        guard sizes.maximumPositions >= recipe.data.sequenceLength else {
            throw DistillationError.positions(
                teacher: name, positions: sizes.maximumPositions, sequence: recipe.data.sequenceLength)
        }
        if let layers = configuration.layers, let layer = layers.first(where: { $0 >= sizes.layers }) {
            throw DistillationError.noLayer(teacher: name, layer: layer, layers: sizes.layers)
        }
        if let groups {
            var workload = recipe
            workload.model = sizes
            do {
                try groups.layout.check(workload.workload)
            } catch {
                throw DistillationError.layout(teacher: name, reason: "\(error)")
            }
        }
        let partition: any Partition = groups.map { recipe.parallel.partition(over: $0) } ?? WholeModel()
        model = try Transformer(
            sizes, backend: backend, precision: folder.storedType == .bf16 ? .bf16 : .f32, isTrained: false,
            positions: recipe.data.sequenceLength, partition: partition)
        try folder.loadWeights(into: model.store, backend: backend)
        self.configuration = configuration
    }

    /// What it says of `tokens` (T) in a step; `nil` where the text alone is learned from, and the teacher rests.
    ///
    /// - Parameter context: Of a pass that is not recorded.
    public func states(_ tokens: Tensor, step: Int, _ context: MoEContext) throws -> TeacherStates? {
        guard let term = configuration.term(step: step), let head = model.head else { return nil }
        return TeacherStates(states: try model.states(tokens: tokens, context), head: head.loss, term: term)
    }

    /// Gives a student's weights their first values, layer by layer as ``DistillationConfiguration/sources`` says.
    ///
    /// - Throws: ``DistillationError/start(teacher:parameter:shape:source:found:)`` for the first parameter that cannot
    ///   begin so, before any is changed.
    public func begin(_ student: Transformer, backend: any Backend) throws {
        let sources = configuration.sources(
            studentLayers: student.configuration.layers, teacherLayers: model.configuration.layers)
        let pairs = try student.store.parameters.map { parameter in
            let name = sourceName(of: parameter, sources)
            let source = model.store[name]
            guard let source, source.shape == parameter.shape, source.shard == parameter.shard else {
                throw DistillationError.start(
                    teacher: configuration.teacher, parameter: parameter.name, shape: "\(parameter.shape)",
                    source: name, found: source.map { "\($0.shape)" })
            }
            return (parameter, source)
        }
        for (parameter, source) in pairs {
            try source.withWeights(on: backend.stream) { from in
                try parameter.withWeights(on: backend.stream) { try backend.convert(from, into: $0) }
            }
        }
    }

    private func sourceName(of parameter: Parameter, _ sources: [Int]) -> String {
        guard let layer = parameter.layer else { return parameter.name }
        return parameter.name.replacing(".layers.\(layer).", with: ".layers.\(sources[layer]).", maxReplacements: 1)
    }
}
