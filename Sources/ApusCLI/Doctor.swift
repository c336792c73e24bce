import ApusKernels
import ApusTensor
import ArgumentParser

/// `apus doctor`: what this machine has, and whether every op computes what it should.
struct Doctor: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show what this machine has, and check every op against its definition.",
        discussion: """
            Each op, forward and backward, is held against plain loops in double precision: at most 1e-5 off in f32 and \
            1e-2 in bf16, by norm. Ends with status 1 when one is not.

            Example:
              apus doctor
              apus doctor --device cuda --json
              apus doctor --device cuda --portable
              apus doctor --only attention
              mpirun -n 4 apus doctor --collectives
            """)

    @Option(help: "What to examine: auto (the processor, and a GPU where there is one), cpu or cuda.")
    var device = DeviceChoice.automatic

    @Flag(
        help: "Check the portable kernels, which any GPU since compute capability 8.0 runs, on whatever GPU there is.")
    var portable = false

    @Flag(help: "Check the kernels of batch-invariant mode: our own alone, no library's.")
    var batchInvariant = false

    @Option(help: "Run the checks whose name contains this.")
    var only: String?

    @OptionGroup var threadOptions: ThreadOptions
    @OptionGroup var collectiveOptions: CollectiveOptions

    @Flag(help: "Do not measure speed.")
    var skipSpeed = false

    @Flag(help: "Print one JSON object.")
    var json = false

    func validate() throws {
        if portable, device == .cpu {
            throw ValidationError("--portable checks kernels of a GPU; give --device cuda with it")
        }
        if checks.isEmpty, device == .cpu || !RecordedWorkChecks.names.contains(where: isWanted) {
            throw ValidationError("--only '\(only ?? "")' matches no check; `apus doctor` lists them")
        }
    }

    /// Whether `--only` leaves the check of this name.
    func isWanted(_ name: String) -> Bool { only.map(name.contains) ?? true }

    func run() throws {
        if collectiveOptions.collectives { return try examineCollectives() }
        var reports: [Report] = []
        if device != .cuda && !portable { reports.append(try examineProcessor()) }
        if device != .cpu, let report = try examineCUDA() { reports.append(report) }
        if json {
            // One object whatever was examined; a GPU beside the processor is a field of it.
            let second = reports.count > 1 ? JSONText.object(reports[1].fields) : .null
            let isPair = device == .automatic && !portable
            print(JSONText.object(reports[0].fields + (isPair ? [("cuda", second)] : [])))
        }
        if !reports.allSatisfy(\.passes) { throw ExitCode.failure }
    }

    /// What was found about one device.
    struct Report {
        let fields: [(String, JSONText)]
        let passes: Bool
    }

    /// The checks that were asked for.
    var checks: [OpCheck] { OpCheck.all.filter { check in only.map(check.name.contains) ?? true } }

    private func examineProcessor() throws -> Report {
        let machine = Machine()
        let backend = CPUBackend(
            threadCount: threadOptions.count, memoryLimit: CachingAllocator.physicalMemory,
            batchInvariant: batchInvariant)
        let speeds = skipSpeed ? [] : try measure(machine, threads: backend.pool.threadCount)
        if !json { describe(machine, backend, speeds) }
        return try check(backend, fields(machine, backend, speeds))
    }

    /// Runs the checks and prints what they found, unless all is to be one object.
    ///
    /// - Parameter more: What else was checked.
    func check(
        _ backend: any Backend, _ fields: [(String, JSONText)], more: () throws -> [OpCheck.Outcome] = { [] }
    ) throws -> Report {
        let outcomes = try checks.map { try $0.run(on: backend) } + more()
        let failures = outcomes.filter { !$0.passes }
        if !json {
            print(table([["op", "type", "error", "allowed", ""]] + outcomes.map(row)))
            print(
                failures.isEmpty
                    ? "\nall \(outcomes.count) checks passed\n"
                    : "\n\(failures.count) of \(outcomes.count) checks FAILED: \(failures.map(\.name).joined(separator: ", "))\n"
            )
        }
        let results: [(String, JSONText)] = [("checks", list(outcomes)), ("passes", .bool(failures.isEmpty))]
        return Report(fields: fields + results, passes: failures.isEmpty)
    }

    /// A measured speed.
    struct Speed {
        let name: String
        let key: String
        let value: Double
        let unit: String
    }

    private func measure(_ machine: Machine, threads: Int) throws -> [Speed] {
        let plain = CPUBackend(threadCount: threads)
        var speeds = [DType.f32, .bf16].map { dtype in
            Speed(
                name: "peak, multiply-adds \(dtype)", key: "peak_\(dtype)_gflops",
                value: MachineSpeed.peak(dtype, pool: plain.pool) / 1e9, unit: "GFLOP/s")
        }
        for engine in [CPUBackend.ProductEngine.own, .oneDNN] where engine == .own || machine.hasOneDNN {
            let backend = CPUBackend(threadCount: threads, productEngine: engine)
            for dtype in [DType.f32, .bf16] {
                let speed = try MachineSpeed.product(dtype, backend: backend)
                speeds.append(
                    Speed(
                        name: "products \(dtype), \(engine == .own ? "own" : "oneDNN")",
                        key: "\(engine.rawValue)_\(dtype)_gflops", value: speed / 1e9, unit: "GFLOP/s"))
            }
        }
        let memory = try MachineSpeed.memory(backend: plain)
        speeds.append(
            Speed(name: "memory, read and written", key: "memory_gb_per_second", value: memory / 1e9, unit: "GB/s"))
        return speeds
    }

    private func describe(_ machine: Machine, _ backend: CPUBackend, _ speeds: [Speed]) {
        var rows = [
            ["device", "cpu"],
            ["processor", machine.processor.isEmpty ? "unknown" : machine.processor],
            ["cores", "\(machine.cores), \(backend.pool.threadCount) threads in use"],
            [
                "vector units",
                machine.vectorUnits.isEmpty ? "none that the kernels use" : machine.vectorUnits.joined(separator: ", "),
            ],
            ["memory", "\(formatBytes(machine.memory)), \(formatBytes(machine.availableMemory)) available"],
            [
                "oneDNN",
                machine.hasOneDNN ? machine.oneDNN : "not used: \(machine.oneDNN); products run on Apus' own kernels",
            ],
        ]
        rows += speeds.map { [$0.name, "\(fixed($0.value, 1)) \($0.unit)"] }
        print(table(rows, leftColumns: 2) + "\n")
    }

    private func row(_ outcome: OpCheck.Outcome) -> [String] {
        [
            outcome.name, "\(outcome.dtype)", scientific(outcome.error), scientific(outcome.tolerance),
            outcome.passes ? "pass" : "FAIL",
        ]
    }

    private func fields(_ machine: Machine, _ backend: CPUBackend, _ speeds: [Speed]) -> [(String, JSONText)] {
        [
            ("device", .string("cpu")), ("processor", .string(machine.processor)), ("cores", .integer(machine.cores)),
            ("threads", .integer(backend.pool.threadCount)),
            ("vector_units", .array(machine.vectorUnits.map { .string($0) })),
            ("memory_bytes", .integer(machine.memory)), ("available_bytes", .integer(machine.availableMemory)),
            ("onednn", machine.hasOneDNN ? .string(machine.oneDNN) : .null),
            ("speed", .object(speeds.map { ($0.key, .number($0.value)) })),
        ]
    }

    /// What each check found.
    private func list(_ outcomes: [OpCheck.Outcome]) -> JSONText {
        .array(
            outcomes.map {
                .object([
                    ("op", .string($0.name)), ("dtype", .string("\($0.dtype)")), ("error", .number($0.error)),
                    ("tolerance", .number($0.tolerance)), ("passes", .bool($0.passes)),
                ])
            })
    }
}
