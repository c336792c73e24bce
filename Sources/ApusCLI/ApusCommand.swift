import ArgumentParser
import Glibc

/// The command `apus`: one subcommand for each verb.
@main
struct ApusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "apus",
        abstract: "Train and serve Mixture-of-Experts language models.",
        discussion: """
            CHECKPOINT is a folder: a checkpoint of Apus, a run (its newest checkpoint), or a Hugging Face folder of \
            Mixtral, OLMoE or Qwen3-MoE as it is.

            Example:
              apus train Recipes/quickstart.yaml --set data.path=book.txt --out runs/book
              apus generate runs/book --prompt 'Once upon a time' --stream
            """,
        version: "0.1.0",
        subcommands: [
            Train.self, Distill.self, TokenizerCommand.self, Data.self, Eval.self, Generate.self, Inspect.self,
            Convert.self, Upcycle.self, Aggregate.self, Prune.self,
            Report.self, ProbeCommand.self, Verify.self, Doctor.self, Bench.self,
        ])

    static func main() {
        do {
            var command = try parseAsRoot()
            try command.run()
        } catch {
            // Usage, help and exit codes are the parser's to show; what went wrong in the work is one line of ours.
            guard !(error is ExitCode), exitCode(for: error) == .failure else { exit(withError: error) }
            writeError("error: \(error)")
            exit(withError: ExitCode.failure)
        }
    }
}

/// Writes a line to standard error, after all that was printed before it.
func writeError(_ line: String) {
    flushOutput()
    var rest = Array((line + "\n").utf8)[...]
    while !rest.isEmpty {
        let count = rest.withUnsafeBytes { write(STDERR_FILENO, $0.baseAddress, $0.count) }
        guard count > 0 else { return }
        rest = rest.dropFirst(count)
    }
}

/// Hands what was printed to whoever reads it.
func flushOutput() { fflush(nil) }

/// A use of the command line that its parser cannot see is wrong.
struct CommandError: Error, CustomStringConvertible {
    let description: String

    /// An error that says what was wrong and what would work.
    init(_ description: String) { self.description = description }
}
