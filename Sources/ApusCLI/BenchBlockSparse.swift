import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ArgumentParser

// Shape letters: R routed rows, D model width, F expert width, E experts.

/// `apus bench blocksparse`: products with a block-sparse matrix.
struct BenchBlockSparse: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "blocksparse",
        abstract: "Measure block-sparse products beside grouped and dense ones.",
        discussion: """
            The six products of experts without a gate, forward and backward, in MegaBlocks' formulation: hidden activations \
            are a matrix (R, E F) of which the blocks of each row's own expert are there. S stands for that matrix, D for \
            a dense one, result first; dstd is the form with S transposed. Beside each: the grouped product of the same \
            rows, and one dense product of as many rows with one expert's weights. All three take turns. The topology is \
            built anew for each batch; its time stands apart. Last, a whole layer with either bank, its router included.

            Example:
              apus bench blocksparse --tokens 2048 --width 256 --expert-width 512 --experts 8
              apus bench blocksparse --shape megablocks-medium --precision bf16-pure --routing zipf --device cuda
            """)

    @OptionGroup var layer: LayerShapeOptions
    @OptionGroup var repeats: RoundOptions
    @Option(help: "Where to compute: auto, cpu or cuda.")
    var device = DeviceChoice.cpu
    @OptionGroup var options: BenchOptions

    func validate() throws { try layer.requireBlocks() }

    func run() throws {
        let backend = try options.backend(on: device)
        let (shape, precision) = (layer.value, options.precision.value)
        let rounds = repeats.rounds ?? 9
        let products = try BlockSparseBench(shape, precision, backend).measure(rounds: rounds)
        let layers = try layerSeconds(shape, precision, backend, rounds: rounds)
        let operations = 2 * Double(shape.rows) * Double(shape.width) * Double(shape.expertWidth)
        let all = products.forms.map(\.seconds).reduce([0.0, 0, 0]) { zip($0, $1).map(+) }
        let fields: [(String, JSONText)] = [
            ("device", .string(device.rawValue)), ("rows", .array(shape.loads().map { .integer($0) })),
            ("block_size", .integer(shape.blockSize)), ("topology_seconds", .number(products.topology)),
            (
                "products",
                .array(
                    products.forms.map { form in
                        .object([
                            ("product", .string(form.name)),
                            ("block_sparse_tflops", speed(operations, form.seconds[0])),
                            ("grouped_tflops", speed(operations, form.seconds[1])),
                            ("dense_tflops", speed(operations, form.seconds[2])),
                            ("of_dense", .number(form.seconds[2] / form.seconds[0])),
                        ])
                    })
            ),
            ("of_dense", .number(all[2] / all[0])), ("of_grouped", .number(all[1] / all[0])),
            ("grouped_layer_seconds", .number(layers[0])), ("block_sparse_layer_seconds", .number(layers[1])),
        ]
        options.report("blocksparse", layer.fields + fields) {
            let lines = (products.forms + [BlockSparseBench.Form(name: "all six", seconds: all)]).map { form in
                [form.name] + form.seconds.map { fixed($0 * 1e3, 3) }
                    + ["\(fixed(form.seconds[2] / form.seconds[0] * 100, 1)) %"]
            }
            let head = ["product, ms", "block-sparse", "grouped", "dense", "of dense"]
            return """
                \(layer.text), \(options.precision.rawValue), \(options.place(device)), routing \
                \(layer.routing.rawValue), blocks of \(shape.blockSize)
                \(table([head] + lines))
                topology: \(fixed(products.topology * 1e3, 3)) ms; a product is \(fixed(operations / 1e9, 2)) GFLOP
                the whole layer: grouped \(fixed(layers[0] * 1e3, 2)) ms, block-sparse \(fixed(layers[1] * 1e3, 2)) ms
                """
        }
    }

    private func speed(_ operations: Double, _ seconds: Double) -> JSONText { .number(operations / seconds / 1e12) }

    /// Seconds of a whole layer with the grouped bank and with the block-sparse one.
    private func layerSeconds(
        _ shape: LayerShape, _ precision: Precision, _ backend: any Backend, rounds: Int
    ) throws -> [Double] {
        let banks = ["grouped", "block-sparse"].compactMap(BankVariant.init(argument:))
        let benches = try banks.map {
            try MoELayerBench(shape, bank: $0, policy: .dropless, precision: precision, backend)
        }
        let works = benches.map { bench in TimedWork(backend: backend) { _ = try bench.pass() } }
        return try timeInTurn(works, rounds: rounds, warmup: 2).map(median)
    }
}
