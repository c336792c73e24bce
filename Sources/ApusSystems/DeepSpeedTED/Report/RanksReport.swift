public import ApusCollectives
public import ApusKernels
import ApusModels
import ApusParallel
import ApusTensor
import ApusTraining

/// What the ranks of a world measured together: traffic of all combinations of mechanisms, state, and step times.
public struct RanksReport: Sendable {
    /// What was run for traffic and time.
    public let bench: TEDBench
    /// What was built for state.
    public let stateBench: TEDBench
    /// The layout, in words.
    public let layout: String
    /// Every combination, in the order of ``TEDSwitches/all``.
    public let traffic: [TrafficRow]
    /// Without and with ZeRO.
    public let states: [StateRow]

    /// Measures, as one of the ranks of `world`, all of which call it.
    ///
    /// - Parameters:
    ///   - timed: Steps that are timed, for the mechanisms one after the other.
    ///   - backend: Makes the rank's backend, for one run each, so that their memory is counted from zero.
    /// - Throws: ``TEDError``; what layouts and steps throw.
    public static func measure(
        _ bench: TEDBench, over world: any Collective, timed: Int = 5, backend: () throws -> any Backend
    ) throws -> RanksReport {
        func fresh<Row>(_ body: (any Backend) throws -> Row) throws -> Row {
            let backend = try backend()
            defer { backend.allocator.releaseCache() }
            return try body(backend)
        }
        let shown = TEDSwitches.mechanisms.map(\.switches)
        let stateBench = bench.forState
        try bench.recipe.model.checkSizes()
        return RanksReport(
            bench: bench, stateBench: stateBench, layout: "\(try bench.layout())",
            traffic: try TEDSwitches.all.map { switches in
                try fresh {
                    try TrafficRow.measure(
                        bench, switches, over: world, backend: $0, timed: shown.contains(switches) ? timed : 0)
                }
            },
            states: try [.none, .optimizerState].map { zero in
                try fresh { try StateRow.measure(stateBench, zero, over: world, backend: $0) }
            })
    }

    /// The same on ranks that are threads of this process, as the first of them has it.
    ///
    /// - Throws: as ``measure(_:over:timed:backend:)``.
    public static func inProcess(_ bench: TEDBench, timed: Int = 5) throws -> RanksReport {
        try InProcess.run(ranks: bench.ranks, timeout: .seconds(300)) { world in
            try measure(bench, over: world, timed: timed) { CPUBackend(threadCount: 1) }
        }[0]
    }

    /// The row of a combination.
    public func row(_ switches: TEDSwitches) -> TrafficRow? { traffic.first { $0.switches == switches } }

    /// Whether every rank sent what the formulas say, in all combinations.
    public var agrees: Bool { traffic.allSatisfy(\.agreesOnAllRanks) }
}

extension TEDBench {
    /// A larger model in the same layout: norms and padding are small beside the rest, and the buffers nearly fill the
    /// allocator's size classes (token table, head and positions make a power of two).
    public var forState: TEDBench {
        var bench = self
        (bench.width, bench.hidden, bench.sequence, bench.vocabulary) = (256, 1024, 16, 1024 - 8)
        return bench
    }
}
