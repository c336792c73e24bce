import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusCollectives
@testable import ApusTraining

/// What a run tells of steps whose numbers are not all known.
@Suite struct RunLogTests {
    @Test func `a gate that grows sparse counts the experts that a token still has`() throws {
        let scratch = try ScratchFolder()
        var model = TrainingCase.all[3].model
        var experts = try #require(model.moe(layer: 0))
        experts.choices = 4
        experts.router = RouterConfiguration(annealing: DenseToSparse(steps: 5))
        model.feedForward = [.moe(experts)]
        let recipe = Recipe(
            seed: 7, model: model, data: DataConfiguration(path: "text.txt", sequenceLength: 16),
            training: TrainingConfiguration(steps: 9, batch: 4, precision: .f32), output: OutputConfiguration())
        let log = try RunLog(
            recipe, folder: scratch.path, afterStep: 0, ranks: 1, progress: ProgressLine(steps: 9, every: 0),
            backend: CPUBackend(threadCount: 1))
        // Of 64 tokens.
        func utilisation(choices: [Int]) -> Double {
            let layer = RoutingSummary.Layer(layer: 0, choices: choices, rows: choices)
            return log.metrics(
                TrainStep.Result(
                    loss: 1, divergence: nil, gradientNorm: 1,
                    routing: RoutingSummary(layers: [layer], balance: nil, z: nil, droppedFraction: 0)),
                step: 1, learningRate: 0.1, seconds: 1
            ).mfu
        }
        let (four, two, one) = (
            utilisation(choices: [64, 64, 64, 64]), utilisation(choices: [64, 64, 0, 0]),
            utilisation(choices: [32, 32, 0, 0])
        )
        // Each choice costs the same.
        #expect(one > 0 && abs((four - two) - 2 * (two - one)) < 1e-9 * four)
        let expert = 2.0 * Double(model.width * experts.width) * Double(experts.activation.inputsPerOutput + 1)
        let all = model.flopsPerToken(meanContext: model.meanContext(sequence: 16))
        #expect(abs((four - one) / four - 3 * 3 * expert / all.training) < 1e-9)
    }

    @Test func `time in which nobody knows who waited is not told as none`() throws {
        let scratch = try ScratchFolder()
        let log = try RankLog(folder: scratch.path, rank: 2, every: 1)
        for exposed in [0.25, nil] {
            let row = OperationTotals.Row(
                communicator: "data", operation: "all-reduce", calls: 1, bytes: 8, seconds: 0.5,
                exposedSeconds: exposed)
            let allocator = CachingAllocator()
            try log.append(step: 1, seconds: 1.5, OperationTotals(rows: [row]), allocator.statistics)
        }
        let lines = textFile("\(scratch.path)/logs/rank-2.log")?.split(separator: "\n") ?? []
        #expect(lines.count == 2)
        #expect(lines.first?.hasPrefix("step 1  1.500 s, 0.250 of them waiting for other ranks  ") == true)
        #expect(lines.last?.hasPrefix("step 1  1.500 s  ") == true)
    }
}
