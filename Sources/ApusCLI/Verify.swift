import ArgumentParser

/// `apus verify`: proofs that another way of computing gives what the plain one does.
struct Verify: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Prove that another way of computing gives the same results.",
        discussion: """
            Example:
              apus verify device Recipes/quickstart.yaml --set data.path=book.txt
            """,
        subcommands: [VerifyDevice.self])
}
