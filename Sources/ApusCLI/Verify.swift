import ArgumentParser

/// `apus verify`: proofs that another way of computing gives what the plain one does.
struct Verify: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Prove that another way of computing gives the same results.",
        discussion: """
            Example:
              apus verify device Recipes/quickstart.yaml --set data.path=book.txt
              apus verify layout Recipes/quickstart.yaml --set data.path=book.txt --tensor 2 --expert 2 --data 2
            """,
        subcommands: [VerifyDevice.self, VerifyLayout.self])
}
