import ArgumentParser

/// `apus data`: text to token shards.
struct Data: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Prepare text for training, and look at what was prepared.",
        subcommands: [DataPrepare.self, DataInspect.self])
}
