import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

// Shape letters: T tokens, D model width, Hq query heads, Hk key heads, H head width.

/// The options of an attention layer under test.
struct AttentionOptions: CustomTestStringConvertible {
    enum NormKind { case none, perHead, perProjection }

    var heads = 4
    var keyValueHeads = 2
    var norm = NormKind.none
    var hasRotary = false
    var clip: Float?
    var window = 0
    var hasDocuments = false
    var hasBias = false

    var testDescription: String {
        "heads \(heads)/\(keyValueHeads), norm \(norm), rotary \(hasRotary), clip \(clip.map { "\($0)" } ?? "none"), "
            + "window \(window), documents \(hasDocuments), bias \(hasBias)"
    }

    static let all = [
        AttentionOptions(heads: 1, keyValueHeads: 1),
        AttentionOptions(heads: 2, keyValueHeads: 2, hasBias: true),
        AttentionOptions(hasRotary: true),
        AttentionOptions(norm: .perHead, hasRotary: true),
        AttentionOptions(norm: .perProjection, hasRotary: true),
        AttentionOptions(heads: 2, keyValueHeads: 1, norm: .perHead),
        AttentionOptions(hasRotary: true, clip: 0.8),
        AttentionOptions(window: 3),
        AttentionOptions(hasRotary: true, hasDocuments: true),
        AttentionOptions(norm: .perProjection, hasRotary: true, clip: 1.2, window: 5, hasDocuments: true),
    ]
}

@Suite struct `A self-attention layer` {
    static let width = 10
    static let headWidth = 6
    let backend = CPUBackend(threadCount: 2)

    private func layer(_ options: AttentionOptions) throws -> (SelfAttention, [Parameter]) {
        let (heads, keys) = (options.heads * Self.headWidth, options.keyValueHeads * Self.headWidth)
        let projection = parameter("projection", heads + 2 * keys, Self.width)
        let bias = options.hasBias ? parameter("bias", heads + 2 * keys) : nil
        let output = parameter("output", Self.width, heads)
        var parameters = [projection, output] + (bias.map { [$0] } ?? [])
        var norm: SelfAttention.QueryKeyNorm?
        if options.norm != .none {
            let query = parameter("query_norm", options.norm == .perHead ? Self.headWidth : heads, deviation: 1)
            let key = parameter("key_norm", options.norm == .perHead ? Self.headWidth : keys, deviation: 1)
            parameters += [query, key]
            norm = SelfAttention.QueryKeyNorm(query: query, key: key, epsilon: 1e-5)
        }
        let layer = SelfAttention(
            layer: 0,
            shape: SelfAttention.Shape(
                heads: options.heads, keyValueHeads: options.keyValueHeads, headWidth: Self.headWidth,
                window: options.window,
                clip: options.clip),
            projection: Linear(weight: projection, bias: bias), output: Linear(weight: output), queryKeyNorm: norm,
            rotary: options.hasRotary
                ? try backend.rotaryTable(positions: 32, headWidth: Self.headWidth, theta: 100) : nil)
        return (layer, parameters)
    }

    /// Two sequences, the second perhaps of two documents.
    private func layout(_ options: AttentionOptions) throws -> TokenLayout {
        let plain = try TokenLayout.sequences([5, 9], backend: backend)
        let first = options.hasDocuments ? [0, 0, 0, 0, 0] + [0, 0, 0, 0, 4, 4, 4, 4, 4] : nil
        return TokenLayout(
            cumulativeLengths: plain.cumulativeLengths, positions: plain.positions,
            firstKey: try first.map { try backend.allocator.integers($0) }, routingGroups: plain.routingGroups)
    }

    @Test(arguments: AttentionOptions.all)
    func `has the gradients that differences show`(options: AttentionOptions) throws {
        let (layer, parameters) = try layer(options)
        var check = try LayerCheck(backend, parameters)
        if options.clip != nil {
            // A small step seldom crosses the bounds of the clip; rounding then weighs more.
            check.check.step = 5e-4
            check.check.tolerance = 2e-2
        }
        let layout = try layout(options)
        try check.expect(
            options.testDescription, inputs: [try backend.allocator.random(Shape(14, Self.width), seed: 2)]
        ) { [try layer($1[0], ForwardContext(tape: $0, layout: layout))] }
    }

    @Test func `sees nothing later, nothing of other sequences and nothing of other documents`() throws {
        let options = AttentionOptions(hasRotary: true, hasDocuments: true)
        let (layer, parameters) = try layer(options)
        _ = try Placed(parameters, backend)
        let layout = try layout(options)
        func run(changing token: Int?) throws -> [Float] {
            var values = randomValues(14 * Self.width, seed: 2)
            if let token { for column in 0..<Self.width { values[token * Self.width + column] += 1 } }
            let context = ForwardContext(tape: Tape(backend: backend, isRecording: false), layout: layout)
            return try layer(.constant(try backend.allocator.floating(values, Shape(14, Self.width))), context).tensor
                .floats()
        }
        let before = try run(changing: nil)
        for (token, reach) in [(0, 0..<5), (3, 3..<5), (5, 5..<9), (8, 8..<9), (9, 9..<14), (13, 13..<14)] {
            let after = try run(changing: token)
            let moved = (0..<14).filter { row in
                (row * Self.width..<(row + 1) * Self.width).contains { before[$0] != after[$0] }
            }
            #expect(moved == Array(reach), "token \(token)")
        }
    }
}
