import ApusCUDA
import ApusCollectives
import ApusTensor
import ArgumentParser

/// `apus bench collectives`: the operations between ranks.
struct BenchCollectives: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "collectives", abstract: "Measure the operations between ranks, by size.",
        discussion: """
            Over the ranks that this is started with, or over threads of this process when it is started alone. A time is \
            that of the slowest rank, the median over rounds. Algorithm bandwidth is bytes in each second; bus bandwidth \
            is what a rank's link carries at least, as nccl-tests defines it.

            Example:
              mpirun -n 4 apus bench collectives
              mpirun -n 2 apus bench collectives --device cuda
              apus bench collectives --ranks 4 --sizes 64KiB 1MiB --only all-to-all --only "uneven all-to-all"
            """)

    @Option(
        parsing: .upToNextOption, help: "Bytes: 1024, 64KiB, 1MiB (default: 1KiB to 64MiB, each four times the last).")
    var sizes: [ByteCount] = []

    @Option(
        help: "Measure this operation only, such as all-to-all; may be given several times.",
        transform: { text in
            guard let kind = CollectiveBench.Kind(rawValue: text) else {
                let kinds = CollectiveBench.Kind.allCases.map { "'\($0.rawValue)'" }.joined(separator: ", ")
                throw ValidationError("'\(text)' is no operation; give one of \(kinds)")
            }
            return kind
        })
    var only: [CollectiveBench.Kind] = []

    @Option(help: "Where the bytes are: cpu, or cuda, a GPU for each rank.")
    var device = DeviceChoice.cpu

    @Option(help: "Ranks as threads of this process, when no launcher has started several (default: 2).")
    var ranks: Int?

    @Option(help: "About how many seconds to repeat each.")
    var seconds = 0.2

    @Option(help: "Seconds that an operation may wait for the other ranks.")
    var timeout = 300

    @Flag(help: "Print one JSON object.")
    var json = false

    func validate() throws {
        if let ranks, !(1...256).contains(ranks) { throw ValidationError("--ranks must lie in 1 ... 256") }
        guard (0...600).contains(seconds) else { throw ValidationError("--seconds must lie in 0 ... 600") }
        if device == .automatic { throw ValidationError("--device is auto; name where the bytes are: cpu or cuda") }
        if device == .cuda, ranks != nil { throw ValidationError("--ranks are threads, and each GPU is a process's") }
        if timeout < 1 { throw ValidationError("--timeout \(timeout): give at least one second") }
        for size in sizes where !(1...1 << 32).contains(size.value) {
            throw ValidationError("--sizes: \(size.value) bytes; a size is from 1 byte to 4 GiB")
        }
    }

    func run() throws {
        let kinds = only.isEmpty ? CollectiveBench.Kind.allCases : only
        let sizes = self.sizes.isEmpty ? CollectiveBench.usualSizes : self.sizes.map(\.value)
        let seconds = seconds
        try World.run(timeout: .seconds(timeout)) { world in
            guard device == .cpu else {
                let backend = try device.ranksGPU()
                return try device.onGPUs(backend, over: world) { gpus in
                    let results = try CUDAWorld.bench(of: gpus, on: backend).run(kinds, sizes: sizes, seconds: seconds)
                    if world.rank == 0 { report(results, by: gpus.carrier ?? "copies on one GPU") }
                }
            }
            guard world.size == 1 else {
                if ranks != nil {
                    let refusal = CommandError("--ranks is for a single process; \(world.size) were started already")
                    // Said by one rank, of which the others hear.
                    if world.rank == 0 { throw refusal }
                    try world.barrier()
                }
                let results = try CollectiveBench(of: world).run(kinds, sizes: sizes, seconds: seconds)
                if world.rank == 0 { report(results, by: world.carrier ?? "ranks") }
                return
            }
            let results = try InProcess.run(ranks: ranks ?? 2, timeout: .seconds(timeout)) {
                try CollectiveBench(of: $0).run(kinds, sizes: sizes, seconds: seconds)
            }
            report(results[0], by: "threads of one process")
        }
    }

    private func report(_ results: [CollectiveBench.Result], by carrier: String) {
        let ranks = results.first?.ranks ?? 0
        let ratios = CollectiveBench.unevenRatios(results)
        let ratio = { (result: CollectiveBench.Result) -> Double? in
            guard result.kind == .allToAllUneven else { return nil }
            return ratios.first { $0.byteCount == result.byteCount }?.ratio
        }
        if json {
            let rows = results.map { result in
                JSONText.object([
                    ("operation", .string(result.kind.rawValue)), ("bytes", .integer(result.byteCount)),
                    ("seconds", .number(result.seconds)), ("fastest_seconds", .number(result.fastest)),
                    ("slowest_seconds", .number(result.slowest)), ("rounds", .integer(result.rounds)),
                    ("algorithm_gb_per_second", .number(result.algorithmBandwidth / 1e9)),
                    ("bus_gb_per_second", .number(result.busBandwidth / 1e9)),
                    ("time_beside_even", .optional(ratio(result)) { .number($0) }),
                ])
            }
            return print(
                JSONText.object([
                    ("bench", .string("collectives")), ("ranks", .integer(ranks)), ("messages_by", .string(carrier)),
                    ("results", .array(rows)),
                ]))
        }
        let head = ["operation", "bytes", "microseconds", "fastest", "slowest", "GB/s", "bus GB/s", "beside even"]
        let rows = results.map { result in
            [
                result.kind.rawValue, formatBytes(result.byteCount), fixed(result.seconds * 1e6, 1),
                fixed(result.fastest * 1e6, 1), fixed(result.slowest * 1e6, 1),
                fixed(result.algorithmBandwidth / 1e9, 3), fixed(result.busBandwidth / 1e9, 3),
                ratio(result).map { fixed($0, 2) } ?? "",
            ]
        }
        print("\(ranks) ranks, \(carrier)\n\n" + table([head] + rows))
    }
}

/// Bytes as they are written: `1024`, `64KiB`, `1M`.
struct ByteCount: ExpressibleByArgument, Sendable {
    /// Bytes.
    let value: Int

    init?(argument: String) {
        let digits = argument.prefix { $0.isASCII && $0.isNumber }
        let units: [String: Int] = ["": 0, "b": 0, "k": 10, "kib": 10, "m": 20, "mib": 20, "g": 30, "gib": 30]
        guard let number = Int(digits), let shift = units[argument.dropFirst(digits.count).lowercased()],
            number <= Int.max >> shift
        else { return nil }
        value = number << shift
    }
}
