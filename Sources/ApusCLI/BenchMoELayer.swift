import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ArgumentParser

// Shape letters: T tokens, D model width, F expert width, E experts, K choices per token.

/// `apus bench moe-layer`: one layer, forward and backward.
struct BenchMoELayer: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "moe-layer", abstract: "Measure a mixture-of-experts layer, forward and backward.",
        discussion: """
            The router is part of what is timed; gradients are written, as by the first micro-batch of a training step. \
            With --routing zipf the most popular expert gets about E times the tokens of the least popular one, with half \
            one expert gets half of the tokens; the loads that came out are printed. Several banks are measured in turn on the same weights and \
            tokens: grouped, block-sparse, padded:FACTOR (capacity, which drops tokens), padded:all (capacity for the \
            fullest expert). FLOP/s count the rows that dropless experts compute (18 T K D F for SwiGLU): padding is no \
            work, what is dropped is not done, and the router does not count.

            The floor is the longer of two times that the same run measures: the six dense products of as many rows with \
            one expert's weights, and every op's operands and results, once each, at the speed of a copy. Extra memory is \
            what a pass takes besides parameters, their gradients, and the gradient of its output. Times of a GPU are its \
            own clock's.

            Example:
              apus bench moe-layer --bank grouped --bank block-sparse --bank padded:1.5 --routing zipf
              apus bench moe-layer --tokens 2048 --width 256 --expert-width 512 --experts 8 --choices 2
              apus bench moe-layer --shape olmoe --precision bf16-pure --device cuda
            """)

    @OptionGroup var layer: LayerShapeOptions
    @Option(help: "grouped, block-sparse, padded:FACTOR or padded:all; may be given several times.")
    var bank: [BankVariant] = [.grouped]
    @OptionGroup var repeats: RoundOptions
    @Option(help: "Where to compute: auto, cpu or cuda.")
    var device = DeviceChoice.cpu
    @OptionGroup var options: BenchOptions

    func validate() throws {
        if bank.contains(where: { $0.kind == .blockSparse }) { try layer.requireBlocks() }
    }

    func run() throws {
        let backend = try options.backend(on: device)
        let (shape, precision) = (layer.value, options.precision.value)
        let loads = try MoELayerBench(
            shape, bank: .grouped, policy: .dropless, precision: precision, backend
        ).loads()
        let benches = try bank.map {
            try MoELayerBench(shape, bank: $0, policy: $0.policy(skew: loads.peakToMean), precision: precision, backend)
        }
        let ceiling = try LayerCeiling(shape, precision, backend)
        let run = try measure(benches, ceiling)
        let speed = try copySpeed(backend)
        let results = try zip(bank, zip(benches, run.passes)).map { bank, measured in
            try LayerResult(bank, measured.1, dropped: measured.0.loads().dropped)
        }
        let report = LayerReport(
            results: results, loads: loads, gemmOnly: median(run.ceiling), bytes: ceiling.bytes, copySpeed: speed,
            operations: LayerCeiling.operations(shape), systemAllocations: run.systemAllocations)
        let routerOperations = 6 * Double(shape.tokens * shape.width * shape.experts)
        options.report("moe-layer", layer.fields + report.fields(device, routerOperations: routerOperations)) {
            """
            \(layer.text), \(options.precision.rawValue), \(options.place(device)), routing \
            \(layer.routing.rawValue): the fullest expert has \(fixed(loads.peakToMean, 2)) times the mean
            \(report.text())
            """
        }
    }

    /// The passes of each bench by round, the seconds of the ceiling's products, and how often memory was asked of the
    /// system. Benches take turns, and the host waits for a device at the very end.
    private func measure(_ benches: [MoELayerBench], _ ceiling: LayerCeiling) throws -> (
        passes: [[MoELayerBench.Pass]], ceiling: [Double], systemAllocations: Int
    ) {
        let allocator = ceiling.backend.allocator
        var passes = benches.map { _ in [MoELayerBench.Pass]() }
        var products: [(begin: any TimeMark, end: any TimeMark)] = []
        var before = 0
        for round in -2..<(repeats.rounds ?? 9) {
            if round == 0 {
                before = allocator.statistics.systemAllocations
                (passes, products) = (benches.map { _ in [] }, [])
            }
            for (index, bench) in benches.enumerated() { passes[index].append(try bench.pass()) }
            let begin = try ceiling.backend.timeMark()
            try ceiling.products()
            products.append((begin, try ceiling.backend.timeMark()))
        }
        return (
            passes, try products.map { try $0.end.seconds(since: $0.begin) },
            allocator.statistics.systemAllocations - before
        )
    }
}
