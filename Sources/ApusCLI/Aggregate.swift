import ApusModels
import ArgumentParser

/// `apus aggregate`: one model with the experts of two.
struct Aggregate: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Make one model of two, with the experts of both.",
        discussion: """
            Weights that both have (attention, norms, embeddings, shared experts) are averaged, the rows of their routers put one \
            below the other, and their experts united, the first model's before the second's (aggregation of experts). The \
            models have to be the same but for their numbers of experts and how they are trained. Training then goes on: \
            recipe.yaml in the new folder is the first run's for the new model, with training.start.

            Example:
              apus aggregate runs/english runs/french --out models/both
              apus train models/both/recipe.yaml --set data.path=both.txt --out runs/both
            """)

    @Argument(help: "A checkpoint, a run, or a Hugging Face folder.")
    var first: String

    @Argument(help: "Another, of the same architecture.")
    var second: String

    @Option(help: "The first model's share of each average, 0 to 1.")
    var weight: Float = 0.5

    @OptionGroup var threads: ThreadOptions

    @OptionGroup var output: SurgeryOptions

    func run() throws {
        try output.requireFree()
        let (one, two) = (try Checkpoint(first), try Checkpoint(second))
        let surgery = try Aggregation(share: weight).surgery(of: one.model, two.model)
        try output.write(surgery, of: one, [two], threads: threads.count)
    }
}
