import ApusCollectives
import ApusKernels
import ApusSystems
import ApusTensor
import ApusTraining
import ArgumentParser

/// `apus bench ted`: what DeepSpeed-TED's mechanisms save in calls, bytes and memory, counted beside the formulas.
struct BenchTED: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ted",
        abstract: "Count what DeepSpeed-TED's mechanisms send and hold, beside what the formulas say.",
        discussion: """
            Started alone it runs all ranks as threads of this process, and measures the optimizer's step and the \
            largest base as well. Under mpirun it runs on the ranks that there are. Ends with status 1 when something \
            counted is not as expected.

            Example:
              apus bench ted
              apus bench ted --ranks 8 --tensor 2 --expert 4 --json
              mpirun -n 2 apus bench ted --device cuda --tensor 2 --expert 1 --width 2048 --hidden 8192
            """)

    @Option(help: "Ranks, when they are threads of this process.")
    var ranks = 16

    @Option(help: "Ranks that share each matrix.")
    var tensor = 4

    @Option(help: "Ranks that divide the experts of a layer.")
    var expert = 4

    @Option(help: "Experts of each of these ranks.")
    var expertsPerRank = 2

    @Option(help: "Layers, of which every second has experts.")
    var layers = 4

    @Option(help: "D, model width.")
    var width = 128

    @Option(help: "F, width of feed-forward layers and experts.")
    var hidden = 512

    @Option(help: "Tokens of a sequence.")
    var sequence = 64

    @Option(help: "Sequences of a rank's pass.")
    var microBatch = 2

    @Option(help: "Timed steps, for a median.")
    var rounds = 5

    @Option(help: "Parameters of the shard whose optimizer step is measured.")
    var shard = 1 << 24

    @Option(help: "MiB of each of 8 ranks in the search for the largest base.")
    var limit = 64

    @Option(help: "Where to compute under mpirun: auto, cpu or cuda.")
    var device = DeviceChoice.cpu

    @Flag(help: "Print one JSON object.")
    var json = false

    func validate() throws {
        try requireSizes(
            ("ranks", ranks), ("tensor", tensor), ("expert", expert), ("experts-per-rank", expertsPerRank),
            ("layers", layers), ("width", width), ("hidden", hidden), ("sequence", sequence),
            ("micro-batch", microBatch), ("rounds", rounds), ("limit", limit))
        guard (1...1 << 30).contains(shard) else {
            throw ValidationError("--shard is \(shard); it must be from 1 to \(1 << 30)")
        }
        guard sequence.isMultiple(of: 2), layers.isMultiple(of: 2) else {
            throw ValidationError("--sequence and --layers must be even")
        }
    }

    func run() throws {
        let report = try World.run { world in
            world.size > 1 ? try measure(over: world) : try measureAlone()
        }
        if let report {
            Console.line(json ? report.json : report.markdown)
            if !report.isAsExpected { throw ExitCode.failure }
        }
    }

    /// All of it, in this process.
    private func measureAlone() throws -> TEDReport? {
        let backend = CPUBackend()
        return try TEDReport.inProcess(
            bench(ranks: ranks), timed: rounds, shard: shard, limit: limit << 20,
            place: "\(ranks) threads of one process on \(ThreadPool.availableCores) cores", backend: backend)
    }

    /// What ranks can measure together; the first of them reports.
    private func measure(over world: any Collective) throws -> TEDReport? {
        let ranksHere = World.ranksOnThisMachine
        let found = try RanksReport.measure(bench(ranks: world.size), over: world, timed: rounds) {
            try device.backend(threads: max(ThreadPool.availableCores / ranksHere, 1), memoryLimit: nil)
        }
        guard world.rank == 0 else { return nil }
        return TEDReport(place: "\(world.size) processes, --device \(device.rawValue)", ranks: found)
    }

    private func bench(ranks: Int) -> TEDBench {
        var bench = TEDBench()
        (bench.ranks, bench.tensor, bench.expert, bench.expertsPerRank) = (ranks, tensor, expert, expertsPerRank)
        (bench.layers, bench.width, bench.hidden) = (layers, width, hidden)
        (bench.sequence, bench.microBatch) = (sequence, microBatch)
        return bench
    }
}
