import Apus
import Glibc

/// Trains the same small model twice, with the learned router and with ``HashRouter``, and prints both losses.
@main
struct Example {
    static func main() {
        do {
            try compare(text: CommandLine.arguments.dropFirst().first ?? ".apus/text/quickstart.txt")
        } catch {
            Console.line("error: \(error)")
            exit(1)
        }
    }

    static func compare(text path: String) throws {
        let vocabulary = ByteVocabulary()
        let corpus = try TextCorpus(path: path, vocabulary: vocabulary)
        let (training, heldOut) = corpus.split(heldOut: 0.05)
        let data = (
            training: try SequenceStream(training, sequenceLength: 128, shuffleSeed: 1, path: path, part: "training"),
            heldOut: try SequenceStream(heldOut, sequenceLength: 128, shuffleSeed: nil, path: path, part: "held-out")
        )
        try train("learned top-1 router", nil, data.training, data.heldOut)
        let router = HashRouter(experts: 8, vocabulary: vocabulary.size, text: training)
        try train("hash router", router, data.training, data.heldOut)
    }

    static func train(
        _ name: String, _ router: HashRouter?, _ training: SequenceStream, _ heldOut: SequenceStream
    ) throws {
        let moe = MoEConfiguration(experts: 8, choices: 1, width: 128, losses: RouterLosses(balance: 0.01))
        let backend = CPUBackend()
        let replace: Transformer.RouterFactory = { _, standard in
            if let router { return router }
            return standard
        }
        let model = try Transformer(
            ModelConfiguration(
                vocabulary: 257, width: 64, heads: 4, maximumPositions: 128,
                feedForward: Array(repeating: .moe(moe), count: 2)),
            backend: backend, precision: .f32, isTrained: true, router: replace)
        try model.store.initialize(seed: 1, backend: backend)
        let optimizer = try AdamW(model.store, configuration: AdamW.Configuration(), seed: 1, backend: backend)
        let settings = TrainingConfiguration(steps: 300, batch: 16, precision: .f32)
        let step = TrainStep(model: model, optimizer: optimizer, backend: backend, configuration: settings, seed: 1)
        print(name)
        for index in 0..<settings.steps {
            let batch = try training.sequences(index * settings.batch..<(index + 1) * settings.batch)
            router?.batch = batch.inputs
            let result = try step(step: index + 1, batch: batch, learningRate: 0.003)
            guard (index + 1) % 100 == 0 else { continue }
            let worst = result.routing.layers.map(\.peakToMean).max() ?? 0
            print("  step \(index + 1): loss \(result.loss), busiest expert \(worst) times the mean")
        }
        router?.batch = try heldOut.sequences(0..<settings.batch).inputs
        print("  held-out loss \(try step.evaluate(heldOut, batches: 1))")
    }
}
