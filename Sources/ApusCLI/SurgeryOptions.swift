import ApusExperts
import ApusKernels
import ApusModels
import ApusTensor
import ApusTraining
import ArgumentParser

/// What `apus upcycle`, `apus aggregate` and `apus prune` share: where the new model goes and how it is told of.
struct SurgeryOptions: ParsableArguments {
    @Option(help: "The new folder.")
    var out: String

    @Flag(help: "Print one JSON object.")
    var json = false

    /// - Throws: ``FileError/alreadyExists(path:)``, before a checkpoint is read through.
    func requireFree() throws { try ModelSurgery.requireFree(out) }

    /// Writes the new model and says what it is and how fast it was written.
    ///
    /// - Parameters:
    ///   - first: The checkpoint whose tokenizer and recipe come along.
    ///   - rows: Further lines for people.
    ///   - fields: Further fields for `--json`.
    func write(
        _ surgery: ModelSurgery, of first: Checkpoint, _ others: [Checkpoint] = [], threads: Int,
        rows: [[String]] = [], fields: [(String, JSONText)] = []
    ) throws {
        let (recipe, reason) = self.recipe(for: surgery.configuration, first)
        let texts = recipe.map { [Recipe.fileName: $0.resolvedYAML()] } ?? [:]
        let record = try surgery.write(
            to: out, texts: texts, backend: CPUBackend(threadCount: threads))
        let summary = SurgerySummary(
            out: out, surgery: surgery, sources: [first] + others, record: record, hasRecipe: recipe != nil)
        if json {
            print(JSONText.object(summary.fields + fields))
        } else {
            print(table(summary.rows + rows, leftColumns: 2))
            print("\nThe optimizer's state does not come along.")
            if recipe != nil { print("Go on with:\n  apus train \(out)/\(Recipe.fileName) --out runs/NAME") }
        }
        if let reason { writeError("note: \(reason)") }
    }

    /// The recipe of the first checkpoint for the new model; or why there is none.
    private func recipe(for model: ModelConfiguration, _ first: Checkpoint) -> (Recipe?, reason: String?) {
        do {
            guard let recipe = try Recipe(ofModel: first.folder) else {
                return (
                    nil,
                    "'\(first.folder)' is of no run, so no recipe.yaml comes along; a recipe with training.start '\(out)' "
                        + "and the same model begins with the new weights"
                )
            }
            guard let successor = recipe.successor(training: model, from: out) else {
                return (
                    nil,
                    "no recipe describes the new model, whose layers differ too much; it can be evaluated and sampled"
                )
            }
            return (successor, nil)
        } catch {
            return (nil, "the recipe of '\(first.folder)' cannot be read, so none comes along: \(error)")
        }
    }
}

/// What became of a surgery.
struct SurgerySummary {
    let out: String
    let surgery: ModelSurgery
    let sources: [Checkpoint]
    let record: ModelSurgery.Record
    let hasRecipe: Bool

    private var counts: ParameterCounts { surgery.configuration.parameterCounts() }

    /// E of each mixture, with its layer.
    private var experts: [(layer: Int, count: Int)] {
        surgery.configuration.feedForward.indices.compactMap { layer in
            surgery.configuration.moe(layer: layer).map { (layer, $0.experts) }
        }
    }

    /// Lines for people.
    var rows: [[String]] {
        var rows = sources.map { source in
            ["from", "\(source.folder), \(grouped(source.configuration.parameterCounts().total)) parameters"]
        }
        rows.append([
            "to",
            "\(out), \(grouped(counts.total)) parameters, \(grouped(counts.active)) active for a token, \(surgery.type)",
        ])
        rows.append(["experts", experts.map { "layer \($0.layer): \($0.count)" }.joined(separator: ", ")])
        let speed = "\(formatBytes(record.bytes)) at \(megabytes(record.bytesPerSecond))"
        rows.append(["written", speed + (record.copyBytesPerSecond.map { "; a plain copy \(megabytes($0))" } ?? "")])
        return rows
    }

    private func megabytes(_ bytesPerSecond: Double) -> String { "\(fixed(bytesPerSecond / 1e6, 0)) MB/s" }

    /// For `--json`.
    var fields: [(String, JSONText)] {
        [
            ("out", .string(out)), ("sources", .array(sources.map { .string($0.folder) })),
            ("parameters", .integer(counts.total)), ("active_parameters", .integer(counts.active)),
            ("dtype", .string("\(surgery.type)")),
            (
                "experts",
                .array(
                    experts.map { .object([("layer", .integer($0.layer)), ("count", .integer($0.count))]) })
            ),
            ("recipe", hasRecipe ? .string("\(out)/\(Recipe.fileName)") : .null),
            ("bytes", .integer(record.bytes)), ("seconds", .number(record.seconds)),
            ("bytes_per_second", .number(record.bytesPerSecond)),
            ("copy_bytes_per_second", .optional(record.copyBytesPerSecond) { .number($0) }),
        ]
    }
}
