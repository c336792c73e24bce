import ApusKernels
import ApusTensor
import ApusTraining
import ArgumentParser

/// `apus verify device`: the same recipe on the processor and on a device.
struct VerifyDevice: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "device", abstract: "Train the same steps on the processor and on a device, and compare.",
        discussion: """
            Both train in f32, whatever the recipe's precision, from the same weights on the same batches, and the device \
            replays the routing of the processor. Loss and gradient norm of every step have to agree. Ends with status 1 \
            when they do not; nothing is written.

            --set-other changes a key for the device alone: what should make no difference, such as \
            training.checkpointing=true, or one whose difference is to be seen. With --device cpu the processor is \
            compared with itself.

            Example:
              apus verify device Recipes/quickstart.yaml --set data.path=book.txt
              apus verify device recipe.yaml --steps 5 --set-other training.precision=bf16 --tolerance 0.02
            """)

    @Argument(help: "A recipe.")
    var recipe: String

    @Option(name: .long, help: "Override a key: dotted.key=value. May be given several times.")
    var set: [String] = []

    @Option(help: "Override a key for the device alone. May be given several times.")
    var setOther: [String] = []

    @Option(help: "Steps to take (default: 50, or the recipe's when it has fewer).")
    var steps: Int?

    @Option(help: "What to compare with the processor: cuda or cpu.")
    var device = DeviceChoice.cuda

    @Option(help: "Largest difference of a step's loss or gradient norm, as a part of the processor's.")
    var tolerance = 1e-3

    @Flag(help: "Print one JSON object.")
    var json = false

    func validate() throws {
        if let steps { try requireSizes(("steps", steps)) }
        // What falls back to the processor would pass without having seen a device.
        if device == .automatic { throw ValidationError("--device is auto; name what to compare with: cuda or cpu") }
        guard tolerance >= 0, tolerance.isFinite else {
            throw ValidationError("--tolerance is \(tolerance); it must be a number from 0, for example 0.001")
        }
    }

    func run() throws {
        let settings = ["training.precision=f32"] + set
        let recipe = try Recipe(contentsOf: self.recipe, overrides: settings)
        let otherRecipe = try Recipe(contentsOf: self.recipe, overrides: settings + setOther)
        let count = try stepCount(recipe)
        let other = try device.backend(
            threads: otherRecipe.training.threads, memoryLimit: otherRecipe.training.memoryLimit,
            deterministic: otherRecipe.training.deterministic)
        let reference = try DeviceChoice.cpu.backend(
            threads: recipe.training.threads, memoryLimit: recipe.training.memoryLimit)
        var comparison = try DeviceComparison(recipe, on: reference, and: other, otherRecipe: otherRecipe)
        var report = DeviceReport(device: device, tolerance: tolerance)
        if !json { Console.line(report.header) }
        while report.steps.count < count, report.failure == nil {
            report.steps.append(try comparison.next())
            if !json, let line = report.line(last: count) { Console.line(line) }
        }
        Console.line(json ? "\(report.object)" : report.verdict)
        if !report.agrees { throw ExitCode.failure }
    }

    private func stepCount(_ recipe: Recipe) throws -> Int {
        let most = recipe.training.steps
        guard let steps else { return min(50, most) }
        guard steps <= most else {
            throw CommandError("--steps is \(steps), but training.steps is \(most); give at most as many")
        }
        return steps
    }
}
