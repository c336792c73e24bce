import ApusData
import ApusExperts
import ApusKernels
import ApusModels
import Testing

@testable import ApusTraining

/// The synthetic tasks, and models that learn them.
@Suite struct ProbeTests {
    private let settings = ProbeSettings(
        steps: 300, batch: 4, length: 24, symbols: 8, learningRate: 5e-3, measuredBatches: 2, seed: 5)

    private func sequences(_ task: ProbeTask, draw: Int = 1) -> [TokenBatch] {
        let (batch, length) = (task.batch(settings, draw: draw), task.sequenceLength(settings))
        return (0..<settings.batch).map { batch[$0 * length..<($0 + 1) * length] }
    }

    @Test func `recall asks at keys that came before for the value that came with them`() {
        var asked = 0
        for sequence in sequences(.recall) {
            var values: [Int32: Int32] = [:]
            for place in stride(from: 0, to: 24, by: 2) {
                let (key, value) = (sequence.inputs[place], sequence.inputs[place + 1])
                #expect((0..<4).contains(key) && (4..<8).contains(value))
                #expect(sequence.targets[place] == values[key] ?? -1 && sequence.targets[place + 1] == -1)
                #expect(values[key] ?? value == value)
                values[key] = value
                asked += sequence.targets[place] >= 0 ? 1 : 0
            }
        }
        #expect(asked >= 4 * 8)
    }

    @Test func `memorise has one dictionary for all sequences and steps`() {
        var dictionary: [Int32: Int32] = [:]
        for sequence in sequences(.memorise, draw: 1) + sequences(.memorise, draw: 2) {
            for place in stride(from: 0, to: 24, by: 2) {
                let (key, value) = (sequence.inputs[place], sequence.targets[place + 1])
                #expect(sequence.inputs[place + 1] == 8 && sequence.targets[place] == -1 && (0..<8).contains(value))
                #expect(dictionary[key] ?? value == value)
                dictionary[key] = value
            }
        }
        #expect(Set(dictionary.keys) == Set(0..<8) && Set(dictionary.values).count > 2)
    }

    @Test func `compress shows nothing but the mark to its questions`() {
        #expect(ProbeTask.compress.sequenceLength(settings) == 23)
        for sequence in sequences(.compress) {
            #expect(sequence.inputs[11] == 9 && sequence.inputs[12...] == ArraySlice((10..<21).map(Int32.init)))
            #expect(sequence.targets[..<12] == ArraySlice(Array(repeating: -1, count: 12)))
            #expect(Array(sequence.targets[12...]) == Array(sequence.inputs[..<11]))
            #expect(sequence.documents?.firstKeys == Array(repeating: 0, count: 12) + Array(repeating: 11, count: 11))
            #expect(sequence.documents?.positions == Array(0...11) + Array(1...11))
        }
    }

    @Test func `copy asks for the symbols in their order`() {
        for sequence in sequences(.copy) {
            let symbols = sequence.inputs[..<18].filter { $0 != 8 }
            #expect(symbols.count == 6 && symbols.allSatisfy { (0..<8).contains($0) })
            #expect(sequence.inputs[18...].allSatisfy { $0 == 9 } && Array(sequence.targets[18...]) == symbols)
            #expect(sequence.targets[..<18].allSatisfy { $0 == -1 })
        }
    }

    @Test(arguments: ProbeTask.allCases)
    func `sequences follow from seed and step alone, and stay within the vocabulary`(_ task: ProbeTask) {
        let batch = task.batch(settings, draw: 3)
        var other = settings
        other.seed = 6
        #expect(task.batch(settings, draw: 3) == batch)
        #expect(task.batch(settings, draw: 4) != batch && task.batch(other, draw: 3) != batch)
        #expect(sequences(task)[0] != sequences(task)[1])
        let entries = Int32(ProbeTask.vocabulary(settings))
        #expect(batch.inputs.allSatisfy { (0..<entries).contains($0) } && batch.targets.allSatisfy { $0 < entries })
        #expect(batch.inputs.count == 4 * task.sequenceLength(settings))
    }

    private func model(convolution: ConvolutionConfiguration?) -> ModelConfiguration {
        ModelConfiguration(
            vocabulary: 300, width: 32, heads: 4, maximumPositions: 16,
            feedForward: [
                .dense(width: 48), .moe(MoEConfiguration(experts: 4, choices: 2, width: 24)),
            ], initialDeviation: 0.1, convolution: convolution)
    }

    @Test(arguments: [nil, ConvolutionConfiguration(layers: [0], width: 3)])
    func `a dictionary is learned, the same way each time`(_ convolution: ConvolutionConfiguration?) throws {
        let probe = try Probe(settings, backend: CPUBackend(threadCount: 2))
        let outcome = try probe.run(.memorise, model(convolution: convolution))
        #expect(outcome.accuracy > (convolution == nil ? 0.25 : 0.8) && outcome.chance == 0.125, "\(outcome)")
        #expect(
            try Probe(settings, backend: CPUBackend(threadCount: 1)).run(.memorise, model(convolution: convolution))
                == outcome)
    }

    /// Without attention nothing but four tokens is seen: not the symbols that were strewn.
    @Test func `convolutions alone are not enough to compress`() throws {
        let probe = try Probe(settings, backend: CPUBackend(threadCount: 2))
        let outcome = try probe.run(
            .compress, model(convolution: ConvolutionConfiguration(layers: [0, 1], width: 2)))
        #expect(outcome.accuracy < 0.5 && outcome.accuracy >= 0, "\(outcome)")
    }

    @Test func `what no task can be made of is refused`() throws {
        let backend = CPUBackend(threadCount: 1)
        for (name, wrong) in [
            ("steps", ProbeSettings(steps: 0)), ("length", ProbeSettings(length: 7)),
            ("symbols", ProbeSettings(symbols: 3)), ("batch", ProbeSettings(batch: -1)),
            ("learning rate", ProbeSettings(learningRate: .nan)), ("learning rate", ProbeSettings(learningRate: 0)),
            ("measured batches", ProbeSettings(measuredBatches: 0)),
        ] {
            let error = #expect(throws: ProbeError.self) { try Probe(wrong, backend: backend) }
            guard case .invalid(name, _, _)? = error else {
                Issue.record("\(name): \(String(describing: error))")
                continue
            }
        }
        var broken = model(convolution: nil)
        broken.heads = 3
        #expect(throws: ModelConfigurationError.self) {
            try Probe(settings, backend: backend).run(.recall, broken)
        }
    }

    @Test func `a model that leaves the finite numbers is named with its task and step`() throws {
        var broken = model(convolution: nil)
        broken.initialDeviation = 2e18
        let error = #expect(throws: ProbeError.self) {
            try Probe(settings, backend: CPUBackend(threadCount: 1)).run(.recall, broken)
        }
        guard case .notFinite(.recall, 1, _)? = error else {
            Issue.record("\(String(describing: error))")
            return
        }
    }
}
