import ApusKernels
import ApusTensor
import Testing

/// Whether the checks of `apus doctor` see what they should: one op at a time is made wrong.
@Suite struct `Checks of ops` {
    typealias Op = FaultyBackend.Op
    typealias Output = FaultyBackend.Output
    typealias Change = FaultyBackend.Change

    /// The checks that make each output, found by running all of them on a backend without fault.
    static let users: [Output: [OpCheck]] = {
        let backend = FaultyBackend()
        var users: [Output: [OpCheck]] = [:]
        for check in OpCheck.all where (try? check.run(on: backend)) != nil {
            for output in backend.takeWritten() { users[output, default: []].append(check) }
        }
        return users
    }()

    /// The names of the checks that fail when an output is wrong.
    private func failures(_ output: Output, _ change: Change) throws -> Set<String> {
        let backend = FaultyBackend(fault: (output, change))
        let checks = try #require(Self.users[output], "no check makes output \(output.index) of \(output.op)")
        return Set(try checks.map { try $0.run(on: backend) }.filter { !$0.passes }.map(\.name))
    }

    @Test func `pass on a backend without fault`() throws {
        let backend = FaultyBackend()
        for check in OpCheck.all {
            let outcome = try check.run(on: backend)
            #expect(outcome.passes, "\(outcome.name) \(outcome.dtype): \(outcome.error)")
        }
    }

    @Test(arguments: Op.allCases)
    func `see every output of every op go wrong`(op: Op) throws {
        let outputs = Self.users.keys.filter { $0.op == op }
        #expect(!outputs.isEmpty, "no check calls \(op)")
        for output in outputs {
            for change in [Change.onePercent, .oneElement] {
                #expect(try !failures(output, change).isEmpty, "output \(output.index), \(change)")
            }
        }
    }

    @Test(arguments: Op.allCases)
    func `see an element that an op leaves unwritten`(op: Op) throws {
        for output in Self.users.keys where output.op == op && !Self.barelyMoved.contains(output) {
            let backend = FaultyBackend(fault: (output, .unwritten))
            let outcomes = try (Self.users[output] ?? []).map { try $0.run(on: backend) }
            let isFresh = Self.makers.contains(op) || Self.sums.contains(output)
            #expect(backend.hasSpoiled != isFresh, "output \(output.index)")
            #expect(!backend.hasSpoiled || outcomes.contains { !$0.passes }, "output \(output.index)")
        }
    }

    /// Ops that allocate their outputs themselves: there was nothing before.
    static let makers: Set<Op> = [
        .blockTopology, .rotaryTable, .sortByExpert, .chooseExperts, .padToCapacity, .countNonFinite,
    ]
    /// Outputs that a check sets to 0, to be added to.
    static let sums: Set<Output> = [
        Output(op: .rmsNormBackward, index: 1), Output(op: .layerNormBackward, index: 1),
        Output(op: .layerNormBackward, index: 2),
    ]
    /// A master weight moves by less than what is allowed in bf16, and the gradient not at all.
    static let barelyMoved: Set<Output> = [Output(op: .adamW, index: 1), Output(op: .adamW, index: 4)]

    @Test(arguments: [
        (Op.groupedWeightGradient, 0, ["grouped weight gradient"]), (.rmsNormBackward, 1, ["rms-norm backward"]),
        (.layerNormBackward, 2, ["layer-norm backward"]), (.attentionBackward, 1, ["attention backward"]),
        (.topK, 0, ["top-k", "expert choice, op by op"]),
        (.chooseExperts, 2, ["expert choice", "expert choice, op by op"]),
        (.gateWeightsBackward, 0, ["gate weights backward"]),
        (.importanceLoss, 1, ["importance loss"]), (.dropRows, 0, ["dropout"]),
        (.dropLightChoices, 0, ["drop light choices"]), (.limitToCapacity, 0, ["limit to capacity"]),
        (.combineRows, 0, ["combine rows"]), (.embed, 0, ["embedding"]), (.clamp, 0, ["clamp"]),
        (.crossEntropy, 1, ["cross-entropy", "cross-entropy backward"]), (.addColumnSums, 0, ["column sums"]),
        (.divergence, 1, ["divergence", "distillation backward"]),
        (.adamW, 2, ["adamw", "adamw, all bf16", "adamw of several buffers", "adamw held back"]),
        (.moveSelectionBias, 0, ["selection bias"]),
        (
            .rotate, 0,
            [
                "rotary", "rotary backward", "rotary of neighbours", "rotary of neighbours backward",
                "rotary of one head for all",
            ]
        ),
    ])
    func `name the op that is wrong`(op: Op, index: Int, names: [String]) throws {
        #expect(try failures(Output(op: op, index: index), .oneElement) == Set(names))
    }
}
