import ApusExperts
import ApusModels

/// Turns a recipe's tree into a ``Recipe``, or tells the log why not.
struct RecipeReader {
    let log: FindingLog

    /// The recipe, or `nil` when something was wrong; the log then says what.
    func recipe(_ root: SourceNode) -> Recipe? {
        if root.isNull {
            log.add(
                .file, "", "holds no recipe", "write at least model, data and training; see Recipes/quickstart.yaml")
            return nil
        }
        guard case .mapping = root.content else {
            log.add(
                root.place, "", "is \(root.shown), not a recipe", "begin with keys such as model:, data: and training:")
            return nil
        }
        let top = Section(root, name: "", log: log)
        let seed = top.integer("seed", 0...Int.max, default: 0, example: 1)
        let section = top.section("model")
        let patches = PatchReader(section: section).patches()
        let data = DataReader(section: top.section("data"), patches: patches?.configuration).data()
        let model = ModelReader(section: section, data: data, patches: patches).model()
        let training = TrainingReader(section: top.section("training"), data: data).training()
        let distillation = DistillationReader(section: top.section("distillation")).distillation(
            layers: model?.layers)
        top.section("training").require(
            training.start == nil || distillation?.start != .teacher, "start", with: ["distillation.start"],
            "has no meaning with distillation.start teacher", "keep one of them")
        let parallel = LayoutReader(section: top.section("layout")).parallel()
        let output = self.output(top.section("output"))
        guard let model, log.isEmpty else { return nil }
        checkRows(model, data, training, top.section("training"))
        checkPooling(model, training, top.section("training"))
        checkAnnealing(model, training, section)
        checkSizes(model, section)
        return Recipe(
            seed: UInt64(seed), model: model, data: data, training: training, distillation: distillation,
            parallel: parallel, output: output)
    }

    private func output(_ section: Section) -> OutputConfiguration {
        OutputConfiguration(
            saveEvery: section.integer("save_every", 0...1_000_000_000, default: 1000, example: 500),
            keep: section.integer("keep", 1...10_000, default: 2, example: 2),
            logEvery: section.integer("log_every", 0...1_000_000_000, default: 10, example: 10))
    }

    /// Rows are numbered with 32 bits.
    private func checkRows(
        _ model: ModelConfiguration, _ data: DataConfiguration, _ training: TrainingConfiguration, _ section: Section
    ) {
        let choices = model.feedForward.indices.compactMap { model.moe(layer: $0)?.choices }.max() ?? 1
        let rowsPerSequence = data.sequenceLength * choices
        let most = Int(Int32.max) / rowsPerSequence
        section.require(
            training.microBatch <= most, "micro_batch",
            "is \(training.microBatch), which makes more than \(Int32.max) routed rows",
            "use at most \(most) with this data.sequence_length")
    }

    /// A pooled balance loss is a product of means over the whole batch, which micro-batches cannot form one by one.
    private func checkPooling(_ model: ModelConfiguration, _ training: TrainingConfiguration, _ section: Section) {
        let pooled = model.feedForward.indices.compactMap { model.moe(layer: $0) }.filter { $0.losses.scope == .pooled }
        section.require(
            pooled.isEmpty || training.microBatch == training.batch, "micro_batch",
            "is \(training.microBatch) of a batch of \(training.batch), with model.experts.losses.scope: pooled",
            "use \(training.batch), or scope: layer")
    }

    /// A model is used with one expert for each token, which it must have learned with.
    private func checkAnnealing(_ model: ModelConfiguration, _ training: TrainingConfiguration, _ section: Section) {
        let steps = model.feedForward.indices.compactMap { model.moe(layer: $0)?.router.annealing?.steps }.max() ?? 0
        section.section("experts").section("router").section("annealing").require(
            steps <= training.steps, "steps",
            "is \(steps), more than training.steps \(training.steps), which would end before the gate is sparse",
            "use at most \(training.steps), or training.steps of at least \(steps)")
    }

    /// What no key is to blame for alone.
    private func checkSizes(_ model: ModelConfiguration, _ section: Section) {
        do throws(ModelConfigurationError) {
            try model.checkSizes()
        } catch .impossible(let key, let found, let reason) {
            log.add(section.place, section.name, "cannot be built, because \(key) is \(found)", reason)
        } catch {
            log.add(section.place, section.name, "cannot be built", "\(error)")
        }
    }
}
