import ApusData
import ApusKernels
import ApusModels
import ApusNN
import ApusOptim
import ApusTensor
import ApusTestSupport
import ApusTraining
import Testing

/// A hundred AdamW steps beside PyTorch's (`Tools/oracles/loss_curve.py`): same weights, batches and schedule.
@Suite struct LossCurveTests {
    @Test(arguments: ["mixtral", "qwen3_moe"], ["constant", "cosine"])
    func `a hundred steps follow PyTorch`(_ family: String, _ schedule: String) throws {
        let golden = try SafetensorsFile(path: "\(goldenFolder("loss_curve"))/\(family).safetensors")
        let backend = CPUBackend()
        let model = try ModelFolder(goldenFolder(family)).load(backend: backend, precision: .f32, isTrained: true)
        let optimizer = try AdamW(model.store, configuration: AdamW.Configuration(), seed: 0, backend: backend)
        let shape = try golden.entry("input_ids").shape
        let configuration = TrainingConfiguration(steps: shape[0], batch: shape[1], precision: .f32, clipNorm: 1)
        let step = TrainStep(
            model: model, optimizer: optimizer, backend: backend, configuration: configuration, seed: 0)
        let ids = try golden.int32Values("input_ids")
        let rates = try golden.floatValues("\(schedule).lr")
        let names = ["lm_loss", "balance_loss", "grad_norm"]
        let expected = try names.map { try golden.floatValues("\(schedule).\($0)") }
        let size = shape[1] * shape[2]
        for index in 0..<shape[0] {
            let inputs = Array(ids[index * size..<(index + 1) * size])
            let targets = inputs.indices.map { ($0 + 1) % shape[2] == 0 ? -100 : inputs[$0 + 1] }
            let batch = TokenBatch(inputs: inputs, targets: targets)
            let result = try step(step: index + 1, batch: batch, learningRate: Double(rates[index]))
            let balance = try #require(result.routing.balance)
            let found = [result.loss, Float(balance), result.gradientNorm]
            for (name, values) in zip(names, zip(found, expected.map { $0[index] })) {
                #expect(abs(values.0 - values.1) < 1e-3 * abs(values.1), "\(name) at step \(index + 1): \(values)")
            }
        }
        for parameter in model.store.parameters {
            let norm = try golden.floatValues("\(schedule).norm.\(hubName(parameter.name, family))")[0]
            let weights = try parameter.acquire(on: backend.stream).floats()
            let found = weights.reduce(0.0) { $0 + Double($1) * Double($1) }.squareRoot()
            #expect(abs(found - Double(norm)) < 1e-3 * Double(norm), "\(parameter.name)")
        }
    }

    private func hubName(_ name: String, _ family: String) -> String {
        guard family == "mixtral" else { return name }
        return name.replacing(".mlp.", with: ".block_sparse_moe.").replacing("gate_proj", with: "w1")
            .replacing("up_proj", with: "w3").replacing("down_proj", with: "w2")
    }
}
