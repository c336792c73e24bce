import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusInference

/// Models that drop tokens in training: outside it nobody's tokens push out anybody's.
@Suite struct `Generation of capacity models` {
    private static let orders = TokenPolicy.DropOrder.allCases

    private func model(
        _ backend: CPUBackend, _ order: TokenPolicy.DropOrder, _ bank: ExpertBankKind, evaluation: Float? = nil
    ) throws -> Transformer {
        let moe = MoEConfiguration(
            experts: 5, choices: 2, width: 40,
            policy: .capacity(factor: 0.5, minimum: 1, order: order, evaluation: evaluation), bank: bank, blockSize: 8)
        let configuration = ModelConfiguration(
            vocabulary: 96, width: 48, heads: 4, keyValueHeads: 2, maximumPositions: 200,
            feedForward: [.moe(moe), .moe(moe)], initialDeviation: 0.25)
        let model = try Transformer(configuration, backend: backend, precision: .f32, isTrained: false)
        try model.store.initialize(seed: 7, backend: backend)
        return model
    }

    @Test(arguments: orders, ExpertBankKind.allCases)
    func `with the cache is that without, alone and together`(
        _ order: TokenPolicy.DropOrder, _ bank: ExpertBankKind
    ) throws {
        let backend = CPUBackend(batchInvariant: true)
        let model = try model(backend, order, bank)
        let prompts = [1, 16, 33].enumerated().map { randomTokens($1, seed: UInt64($0)) }
        let plain = GenerationOptions(maximumTokens: 20, keepsKeys: false)
        let expected = try Generator(model, backend: backend, options: plain).generate(prompts)
        #expect(Set(expected.flatMap(\.tokens)).count > 5, "the model repeats itself, which proves little")
        let generator = try Generator(model, backend: backend, options: GenerationOptions(maximumTokens: 20))
        #expect(try generator.generate(prompts) == expected)
        for (prompt, alone) in zip(prompts, expected) { #expect(try generator.generate([prompt]) == [alone]) }
    }

    @Test(arguments: orders, [ExpertBankKind.grouped, .padded])
    func `a capacity for evaluation holds there, sequence by sequence, and not in generation`(
        _ order: TokenPolicy.DropOrder, _ bank: ExpertBankKind
    ) throws {
        let backend = CPUBackend(batchInvariant: true)
        let texts = [40, 25].enumerated().map { randomTokens($1, seed: UInt64($0)) }
        func model(_ evaluation: Float?) throws -> Transformer {
            try self.model(backend, order, bank, evaluation: evaluation)
        }
        func nats(_ evaluation: Float?, _ texts: [[Int32]]) throws -> Double {
            try Evaluator(model(evaluation), backend: backend).evaluate(texts).nats
        }
        let (free, tight) = (try nats(nil, texts), try nats(0.5, texts))
        #expect(abs(tight - free) > 1e-3 * free)
        #expect(abs(try nats(100, texts) - free) < 1e-5 * free)
        let alone = try texts.reduce(0.0) { $0 + (try nats(0.5, [$1])) }
        #expect(abs(alone - tight) < 1e-5 * tight)
        let options = GenerationOptions(maximumTokens: 12)
        let generated = try [nil, 0.5].map {
            try Generator(model($0), backend: backend, options: options).generate(texts)
        }
        #expect(generated[0] == generated[1])
    }

    @Test func `in training the same policy drops`() throws {
        let backend = CPUBackend(threadCount: 2)
        let model = try model(backend, .position, .grouped)
        let tokens = randomTokens(60, seed: 1)
        func dropped(step: Int?) throws -> Bool {
            let layout = try TokenLayout.sequences([tokens.count], backend: backend)
            let trace = RoutingTrace()
            let context = MoEContext(
                forward: ForwardContext(
                    tape: Tape(backend: backend, isRecording: false), layout: layout, trainingStep: step),
                trace: trace)
            _ = try model.logits(tokens: backend.allocator.tensor(tokens, Shape(tokens.count)), context)
            return try #require(trace[0]).kept.array(of: Int32.self).contains(-1)
        }
        #expect(try dropped(step: 1))
        #expect(try !dropped(step: nil))
    }
}
