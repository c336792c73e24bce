import ApusKernels
import ApusNN
import ApusTensor
import ArgumentParser

// Shape letters: B sequences, S tokens of a sequence, T = B S, Hq query heads, Hk key heads, H head width.

/// `apus bench attention`: causal attention, forward and backward.
struct BenchAttention: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "attention", abstract: "Measure causal attention, forward and backward.",
        discussion: """
            Queries, keys and values are slices of one fused projection's output, as in a model, and so are their gradients. \
            Operations count what a causal mask leaves, both products: 4 B Hq S^2 H / 2 forward, and 2.5 times as many \
            backward, whose five products count as such. Times of a GPU are its \
            own clock's.

            Example:
              apus bench attention --shape 2x4x256x64
              apus bench attention --precision bf16 --device cuda
              apus bench attention --shape 4x32x4096x128 --key-heads 8 --precision bf16 --device cuda
            """)

    @Option(name: .long, help: "BxHqxSxH: sequences, heads, tokens of each, head width; may be given several times.")
    var shape: [String] = []
    @Option(help: "Hk, which divides the heads (default: as many as these).")
    var keyHeads: Int?
    @OptionGroup var repeats: RoundOptions
    @Option(help: "Where to compute: auto, cpu or cuda.")
    var device = DeviceChoice.cpu
    @Flag(inversion: .prefixedNo, help: "Attention gradients of the same bits every time, as training.deterministic.")
    var deterministic = true
    @OptionGroup var options: BenchOptions

    private static let usual = [[2, 4, 256, 64]]
    private static let large = [[8, 16, 2048, 128], [4, 16, 4096, 128], [16, 16, 1024, 64], [1, 32, 8192, 128]]

    private static func sizes(_ text: String) -> [Int]? {
        let sizes = text.split(separator: "x", omittingEmptySubsequences: false).map { Int($0) ?? 0 }
        guard sizes.count == 4, sizes.allSatisfy({ (1...65_536).contains($0) }), sizes[3] <= 256 else { return nil }
        return sizes[0] * sizes[2] <= 1 << 24 ? sizes : nil
    }

    func validate() throws {
        for text in shape {
            guard let sizes = BenchAttention.sizes(text) else {
                throw ValidationError(
                    "--shape is '\(text)'; it must be BxHqxSxH with sizes from 1 to 65536, B S at most 16777216, and heads at "
                        + "most 256 wide")
            }
            try requireDivisor(of: sizes[1])
        }
        if let keyHeads { try requireSizes(("key-heads", keyHeads)) }
    }

    /// The seconds of one shape.
    private struct Row {
        let sizes: [Int]
        let forward: Double
        let both: Double

        var operations: Double { 2 * sizes.map(Double.init).reduce(1, *) * Double(sizes[2]) }
        var forwardSpeed: Double { operations / forward }
        var speed: Double { 3.5 * operations / both }
    }

    private func requireDivisor(of heads: Int) throws {
        guard let keyHeads, keyHeads < 1 || heads % keyHeads != 0 else { return }
        throw ValidationError("--key-heads is \(keyHeads), which does not divide the \(heads) heads")
    }

    func run() throws {
        let backend = try options.backend(on: device, deterministic: deterministic)
        let usual = backend is CPUBackend ? BenchAttention.usual : BenchAttention.large
        let list = shape.isEmpty ? usual : shape.compactMap(BenchAttention.sizes)
        for sizes in list { try requireDivisor(of: sizes[1]) }
        let rows = try list.map { sizes in
            let bench = try AttentionBench(
                sizes, keyHeads: keyHeads ?? sizes[1], options.precision.value.modelType,
                backend)
            let works = [
                TimedWork(backend: backend, body: bench.forward),
                TimedWork(backend: backend) {
                    try bench.forward()
                    try bench.backward()
                },
            ]
            let seconds = try timeInTurn(works, rounds: repeats.rounds ?? 9, warmup: 2).map(median)
            return Row(sizes: sizes, forward: seconds[0], both: seconds[1])
        }
        options.report("attention", fields(rows)) {
            let isFast = rows.contains { $0.speed >= 1e12 }
            let unit = isFast ? 1e12 : 1e9
            let lines = rows.map { row in
                [
                    row.sizes.map(String.init).joined(separator: " x "), fixed(row.forward * 1e3, 3),
                    fixed(row.both * 1e3, 3), fixed(row.forwardSpeed / unit, 1), fixed(row.speed / unit, 1),
                ]
            }
            let head = [
                "B x Hq x S x H", "forward ms", "with backward ms", isFast ? "forward TFLOP/s" : "forward GFLOP/s",
                "with backward",
            ]
            return "causal, \(options.precision.rawValue), \(options.place(device))\n\(table([head] + lines))"
        }
    }

    private func fields(_ rows: [Row]) -> [(String, JSONText)] {
        let shapes = rows.map { row -> JSONText in
            .object(
                zip(["batch", "heads", "sequence", "head_width"], row.sizes).map { ($0, JSONText.integer($1)) } + [
                    ("key_heads", .integer(keyHeads ?? row.sizes[1])), ("forward_seconds", .number(row.forward)),
                    ("seconds", .number(row.both)), ("forward_tflops", .number(row.forwardSpeed / 1e12)),
                    ("tflops", .number(row.speed / 1e12)),
                ])
        }
        return [("device", .string(device.rawValue)), ("shapes", .array(shapes))]
    }
}

/// The tensors of one shape.
private struct AttentionBench {
    private let backend: any Backend
    private let fused: Tensor
    private let gradient: Tensor
    private let dout: Tensor
    private let out: Tensor
    private let logSumExp: Tensor
    private let lengths: Tensor
    private let heads: Int
    private let keyHeads: Int
    private let headWidth: Int

    init(_ sizes: [Int], keyHeads: Int, _ dtype: DType, _ backend: any Backend) throws {
        let (batch, heads, sequence, headWidth) = (sizes[0], sizes[1], sizes[2], sizes[3])
        let tokens = batch * sequence
        self.backend = backend
        self.heads = heads
        self.keyHeads = keyHeads
        self.headWidth = headWidth
        fused = try backend.random(Shape(tokens, (heads + 2 * keyHeads) * headWidth), dtype)
        gradient = try backend.empty(fused.shape, dtype, .workspace)
        dout = try backend.random(Shape(tokens, heads, headWidth), dtype, seed: 2)
        out = try backend.empty(dout.shape, dtype, .workspace)
        logSumExp = try backend.empty(Shape(tokens, heads), .f32, .workspace)
        lengths = try backend.tensor((0...batch).map { Int32($0 * sequence) }, Shape(batch + 1))
    }

    private var scale: Float { 1 / Float(headWidth).squareRoot() }

    /// The queries, keys or values of a fused tensor: `count` heads from head `first` on.
    private func slice(_ tensor: Tensor, _ first: Int, _ count: Int) -> Tensor {
        tensor.columns(first * headWidth..<(first + count) * headWidth).reshaped(tensor.shape[0], count, headWidth)
    }

    private var keysAndValues: KVView {
        KVView(
            keys: slice(fused, heads, keyHeads), values: slice(fused, heads + keyHeads, keyHeads),
            layout: .contiguous(cumulativeLengths: lengths))
    }

    func forward() throws {
        try backend.attention(
            slice(fused, 0, heads), cumulativeLengths: lengths, kv: keysAndValues, mask: .causal, scale: scale,
            into: out,
            logSumExp: logSumExp)
    }

    func backward() throws {
        try backend.attentionBackward(
            dout, q: slice(fused, 0, heads), cumulativeLengths: lengths, kv: keysAndValues, mask: .causal, scale: scale,
            out: out, logSumExp: logSumExp, dq: slice(gradient, 0, heads), dk: slice(gradient, heads, keyHeads),
            dv: slice(gradient, heads + keyHeads, keyHeads))
    }
}
