import ApusCUDA
import ApusCollectives
import ApusTensor
import ArgumentParser

/// What `apus doctor` is asked about ranks.
struct CollectiveOptions: ParsableArguments {
    @Flag(
        help: """
            Measure and check every collective operation over the ranks this is started with, and nothing else: \
            mpirun -n 4 apus doctor --collectives; between GPUs with --device cuda.
            """)
    var collectives = false

    @Option(
        help: ArgumentHelp(
            """
            With --collectives: let a rank fail on purpose, and see that all ranks end and say why: kill@2, stop@0, \
            mismatch@1, skip@1, fail@1, absent@1.
            """, valueName: "kind@rank"),
        transform: { text in
            guard let rehearsal = Rehearsal(text) else {
                let kinds = Rehearsal.Kind.allCases.map(\.rawValue).joined(separator: ", ")
                throw ValidationError("'\(text)' is no rehearsal; give one of \(kinds), @ and a rank, as in kill@2")
            }
            return rehearsal
        })
    var rehearse: Rehearsal?

    @Option(help: "With --collectives: seconds that an operation may wait for the other ranks.")
    var timeout = 60

    func validate() throws {
        if rehearse != nil, !collectives { throw ValidationError("--rehearse needs --collectives") }
        if timeout < 1 { throw ValidationError("--timeout \(timeout): give at least one second") }
    }
}

/// `apus doctor --collectives`.
extension Doctor {
    /// Runs the checks on all ranks; rank 0 prints.
    func examineCollectives() throws {
        let options = collectiveOptions
        options.rehearse?.beforeJoining()
        let passes = try World.run(timeout: .seconds(options.timeout)) { world in
            guard device == .cuda else { return try check(world) }
            let backend = try device.ranksGPU()
            return try device.onGPUs(backend, over: world) {
                try check($0, at: CUDAWorld.place(on: backend, ranks: world.size))
            }
        }
        if !passes { throw ExitCode.failure }
    }

    /// Checks all operations of `world`, on tensors in `place`; rank 0 prints. Whether all are right.
    private func check(_ world: any Collective, at place: TensorPlace? = nil) throws -> Bool {
        if let rehearsal = collectiveOptions.rehearse { try rehearse(rehearsal, on: world, at: place) }
        let isPrinter = world.rank == 0
        if isPrinter, !json { describe(world) }
        // The largest is for its time: the messages of smaller ones go the same ways.
        let sizes = skipSpeed ? Array(CollectiveCheck.usualSizes.dropLast()) : CollectiveCheck.usualSizes
        let outcomes = try CollectiveCheck.run(on: world, sizes: sizes, seconds: skipSpeed ? 0 : 0.05, at: place)
        if isPrinter { print(json ? "\(object(world, outcomes))" : text(outcomes)) }
        return outcomes.allSatisfy(\.passes)
    }

    /// Ends in an error, whatever happens.
    private func rehearse(_ rehearsal: Rehearsal, on world: any Collective, at place: TensorPlace?) throws {
        guard rehearsal.rank < world.size, world.size > 1 else {
            throw CommandError(
                "--rehearse: there is no rank \(rehearsal.rank) among \(world.size) to fail while others wait; "
                    + "start more with mpirun -n N")
        }
        try rehearsal.run(on: world, at: place)
        throw CommandError("--rehearse: the ranks ended as if nothing had happened")
    }

    private func describe(_ world: any Collective) {
        let library = world.carrier
        let note = world.size == 1 ? "; start it with mpirun -n N to try more" : ""
        print(table([["ranks", "\(world.size)\(note)"], ["messages by", library ?? "none"]], leftColumns: 2) + "\n")
    }

    /// What failed, a line for each rank where it did; then each operation's time for few bytes and speed for many.
    private func text(_ outcomes: [CollectiveCheck.Outcome]) -> String {
        let failures = outcomes.flatMap { outcome in
            outcome.wrongByRank.enumerated().filter { $0.element > 0 }.map { rank, wrong in
                "FAIL on rank \(rank): \(outcome.name) of \(formatBytes(outcome.byteCount)) \(outcome.dtype): "
                    + (outcome.name.hasSuffix("at once") ? plural(wrong, "operation") : plural(wrong, "element"))
                    + " wrong"
            }
        }
        var groups: [[CollectiveCheck.Outcome]] = []
        for outcome in outcomes {
            if let last = groups.last?.last, last.name == outcome.name, last.dtype == outcome.dtype {
                groups[groups.count - 1].append(outcome)
            } else {
                groups.append([outcome])
            }
        }
        let rows = groups.compactMap { group -> [String]? in
            guard let least = group.first, let most = group.last else { return nil }
            let passes = group.allSatisfy(\.passes)
            return [
                least.name, "\(least.dtype)", least.byteCount == 0 ? "-" : formatBytes(least.byteCount),
                fixed(least.seconds * 1e6, 1), group.count == 1 ? "-" : formatBytes(most.byteCount),
                group.count == 1 ? "-" : fixed(most.bytesPerSecond / 1e9, 3), passes ? "pass" : "FAIL",
            ]
        }
        let head = ["operation", "type", "bytes", "microseconds", "bytes", "GB/s", ""]
        let failed = outcomes.filter { !$0.passes }.count
        let end =
            failed == 0 ? "all \(outcomes.count) checks passed" : "\(failed) of \(outcomes.count) checks FAILED"
        let first = failures.isEmpty ? "" : failures.joined(separator: "\n") + "\n\n"
        return first + table([head] + rows, leftColumns: 2) + "\n\n\(end)"
    }

    private func object(_ world: any Collective, _ outcomes: [CollectiveCheck.Outcome]) -> JSONText {
        let library = world.carrier
        return .object([
            ("ranks", .integer(world.size)), ("library", .optional(library) { .string($0) }),
            (
                "checks",
                .array(
                    outcomes.map {
                        .object([
                            ("operation", .string($0.name)), ("dtype", .string("\($0.dtype)")),
                            ("bytes", .integer($0.byteCount)), ("seconds", .number($0.seconds)),
                            ("gb_per_second", .number($0.bytesPerSecond / 1e9)), ("wrong", .integer($0.wrong)),
                            ("wrong_by_rank", .array($0.wrongByRank.map { .integer($0) })),
                            ("passes", .bool($0.passes)),
                        ])
                    })
            ), ("passes", .bool(outcomes.allSatisfy(\.passes))),
        ])
    }
}
