import ApusKernels
import ApusTensor

/// One bank's timed passes.
struct LayerResult {
    let bank: BankVariant
    /// Seconds, by round.
    let forward: [Double]
    let backward: [Double]
    let peakBytes: Int
    let extraBytes: Int
    /// Share of the choices that found no room.
    let dropped: Double

    /// Waits for the device.
    init(_ bank: BankVariant, _ passes: [MoELayerBench.Pass], dropped: Double) throws {
        self.bank = bank
        self.dropped = dropped
        forward = try passes.map { try $0.middle.seconds(since: $0.begin) }
        backward = try passes.map { try $0.end.seconds(since: $0.middle) }
        peakBytes = passes.map(\.peakBytes).max() ?? 0
        extraBytes = passes.map(\.extraBytes).max() ?? 0
    }

    private var totals: [Double] { zip(forward, backward).map { $0 + $1 } }
    /// Seconds of both.
    var total: Double { median(totals) }

    /// Time of the first bank over this one's, round by round.
    func speed(over first: LayerResult) -> Double { median(zip(first.totals, totals).map { $0 / $1 }) }
}

/// What `apus bench moe-layer` found.
struct LayerReport {
    let results: [LayerResult]
    let loads: MoELayerBench.Loads
    /// Seconds of the six dense products.
    let gemmOnly: Double
    /// Bytes that the ops move at least.
    let bytes: Double
    /// Bytes a second.
    let copySpeed: Double
    /// Operations of the experts.
    let operations: Double
    let systemAllocations: Int

    private var floor: Double { max(gemmOnly, bytes / copySpeed) }

    private func speed(_ result: LayerResult, routerOperations: Double = 0) -> Double {
        (operations * (1 - result.dropped) + routerOperations) / result.total
    }

    /// For `--json`. The key `gflops` counts the router too.
    func fields(_ device: DeviceChoice, routerOperations: Double) -> [(String, JSONText)] {
        let banks = results.map { result -> JSONText in
            .object([
                ("bank", .string(result.bank.description)), ("forward_seconds", .number(median(result.forward))),
                ("backward_seconds", .number(median(result.backward))), ("seconds", .number(result.total)),
                ("gflops", .number(speed(result, routerOperations: routerOperations) / 1e9)),
                ("expert_tflops", .number(speed(result) / 1e12)), ("of_floor", .number(floor / result.total)),
                ("speed_to_first", .number(result.speed(over: results[0]))),
                ("dropped_fraction", .number(result.dropped)), ("peak_bytes", .integer(result.peakBytes)),
                ("extra_bytes", .integer(result.extraBytes)),
            ])
        }
        return [
            ("device", .string(device.rawValue)), ("peak_load_to_mean", .number(loads.peakToMean)),
            ("rows", .array(loads.rows.map { .integer($0) })), ("gemm_only_seconds", .number(gemmOnly)),
            ("counted_bytes", .number(bytes)), ("copy_bytes_per_second", .number(copySpeed)),
            ("floor_seconds", .number(floor)), ("system_allocations", .integer(systemAllocations)),
            ("banks", .array(banks)),
        ]
    }

    /// As lines, in TFLOP/s where that is more than one.
    func text() -> String {
        let isFast = results.contains { speed($0) >= 1e12 }
        let head = [
            "bank", "forward ms", "backward ms", isFast ? "TFLOP/s" : "GFLOP/s", "of floor", "to first", "dropped",
            "extra memory",
        ]
        let lines = results.map { result in
            [
                result.bank.description, fixed(median(result.forward) * 1e3, 2),
                fixed(median(result.backward) * 1e3, 2), fixed(speed(result) / (isFast ? 1e12 : 1e9), 1),
                "\(fixed(floor / result.total * 100, 1)) %", fixed(result.speed(over: results[0]), 2),
                "\(fixed(result.dropped * 100, 1)) %", formatBytes(result.extraBytes),
            ]
        }
        return """
            \(table([head] + lines))
            floor \(fixed(floor * 1e3, 2)) ms: dense products \(fixed(gemmOnly * 1e3, 2)) ms, \
            \(fixed(bytes / 1e9, 2)) GB at \(fixed(copySpeed / 1e9, 0)) GB/s \(fixed(bytes / copySpeed * 1e3, 2)) ms
            system allocations in timed passes: \(systemAllocations)
            """
    }
}
