import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Glibc
import Testing

// Shape letters: T tokens, D model width, Hq heads, N plain and R rotary elements of a query or key head, V elements of a value
// head, Lq and Lk widths of the compressed queries and of the compressed keys and values.

/// The options of a latent attention layer under test.
struct LatentOptions: CustomTestStringConvertible {
    var queryRank: Int? = 7
    var plainWidth = 4
    var valueWidth = 5
    var pairing = RotaryPairing.neighbours
    var window = 0
    var hasDocuments = false

    var testDescription: String {
        "queries from \(queryRank.map { "\($0)" } ?? "the stream"), plain \(plainWidth), values \(valueWidth), "
            + "\(pairing), window \(window), documents \(hasDocuments)"
    }

    static let all = [
        // Values narrower than keys, as wide, and wider.
        LatentOptions(), LatentOptions(queryRank: nil, valueWidth: 10), LatentOptions(valueWidth: 13),
        LatentOptions(queryRank: nil, pairing: .halves), LatentOptions(window: 3, hasDocuments: true),
    ]
}

@Suite struct `A latent attention layer` {
    static let (width, heads, rank, rotaryWidth, theta) = (10, 3, 8, 6, 100.0)
    /// Two sequences, the second perhaps of two documents.
    static let lengths = [5, 9]
    let backend = CPUBackend(threadCount: 2)

    private func layer(_ options: LatentOptions) throws -> (LatentAttention, [Parameter]) {
        let keyWidth = options.plainWidth + Self.rotaryWidth
        let query = parameter("query", Self.heads * keyWidth, options.queryRank ?? Self.width)
        let down = parameter("down", Self.rank + Self.rotaryWidth, Self.width)
        let norm = parameter("norm", Self.rank, deviation: 1)
        let up = parameter("up", Self.heads * (options.plainWidth + options.valueWidth), Self.rank)
        let output = parameter("output", Self.width, Self.heads * options.valueWidth)
        var parameters = [query, down, norm, up, output]
        var compression: LatentAttention.Compression?
        if let rank = options.queryRank {
            parameters += [parameter("query_down", rank, Self.width), parameter("query_norm", rank, deviation: 1)]
            compression = LatentAttention.Compression(
                projection: Linear(weight: parameters[5]), norm: Norm(weight: parameters[6], epsilon: 1e-5))
        }
        let layer = LatentAttention(
            layer: 0,
            shape: LatentAttention.Shape(
                heads: Self.heads, plainWidth: options.plainWidth, rotaryWidth: Self.rotaryWidth,
                valueWidth: options.valueWidth, window: options.window),
            queryCompression: compression, query: Linear(weight: query), keyValueCompression: Linear(weight: down),
            keyValueNorm: Norm(weight: norm, epsilon: 1e-5), keyValue: Linear(weight: up),
            output: Linear(weight: output),
            rotary: try backend.rotaryTable(positions: 32, headWidth: Self.rotaryWidth, theta: Self.theta)
                .pairing(options.pairing))
        return (layer, parameters)
    }

    private func layout(_ options: LatentOptions) throws -> TokenLayout {
        let plain = try TokenLayout.sequences(Self.lengths, backend: backend)
        let first = options.hasDocuments ? [0, 0, 0, 0, 0] + [0, 0, 0, 0, 4, 4, 4, 4, 4] : nil
        return TokenLayout(
            cumulativeLengths: plain.cumulativeLengths, positions: plain.positions,
            firstKey: try first.map { try backend.allocator.integers($0) }, routingGroups: plain.routingGroups)
    }

    @Test(arguments: LatentOptions.all)
    func `has the gradients that differences show`(options: LatentOptions) throws {
        let (layer, parameters) = try layer(options)
        let check = try LayerCheck(backend, parameters)
        let layout = try layout(options)
        try check.expect(
            options.testDescription, inputs: [try backend.allocator.random(Shape(14, Self.width), seed: 2)]
        ) { [try layer($1[0], ForwardContext(tape: $0, layout: layout))] }
    }

    /// The definition, head by head in double precision (DeepSeek-V2, equations 9 to 19).
    @Test(arguments: LatentOptions.all)
    func `computes its definition`(options: LatentOptions) throws {
        let (layer, parameters) = try layer(options)
        _ = try Placed(parameters, backend)
        let input = randomValues(14 * Self.width, seed: 2)
        let context = ForwardContext(tape: Tape(backend: backend, isRecording: false), layout: try layout(options))
        let found = try layer(.constant(try backend.allocator.floating(input, Shape(14, Self.width))), context).tensor

        let weights = Dictionary(
            uniqueKeysWithValues: try parameters.map { ($0.name, try $0.acquire(on: .cpu).doubles) })
        func product(_ x: [Double], _ name: String) -> [Double] {
            let matrix = weights[name] ?? []
            return (0..<matrix.count / x.count).map { row in
                zip(x, matrix[row * x.count..<(row + 1) * x.count]).reduce(0) { $0 + $1.0 * $1.1 }
            }
        }
        func normalized(_ x: [Double], _ name: String) -> [Double] {
            let root = (x.reduce(0) { $0 + $1 * $1 } / Double(x.count) + 1e-5).squareRoot()
            return zip(x, weights[name] ?? []).map { $0 / root * $1 }
        }
        func turned(_ x: [Double], _ position: Int) -> [Double] {
            var result = x
            for pair in 0..<x.count / 2 {
                let angle = Double(position) * pow(Self.theta, -2 * Double(pair) / Double(x.count))
                let (i, j) = options.pairing == .halves ? (pair, pair + x.count / 2) : (2 * pair, 2 * pair + 1)
                result[i] = x[i] * cos(angle) - x[j] * sin(angle)
                result[j] = x[j] * cos(angle) + x[i] * sin(angle)
            }
            return result
        }
        let (plain, rotary, value) = (options.plainWidth, Self.rotaryWidth, options.valueWidth)
        let keyWidth = plain + rotary
        var expected: [Double] = []
        var first = 0
        for (sequence, length) in Self.lengths.enumerated() {
            let tokens = (0..<length).map { place in
                input[(first + place) * Self.width..<(first + place + 1) * Self.width].map(Double.init)
            }
            first += length
            let joined = tokens.map { product($0, "down") }
            let expanded = joined.map { product(normalized(Array($0[..<Self.rank]), "norm"), "up") }
            for (place, x) in tokens.enumerated() {
                let source = options.queryRank == nil ? x : normalized(product(x, "query_down"), "query_norm")
                let queries = product(source, "query")
                var mixed: [Double] = []
                let start = options.hasDocuments && sequence == 1 && place >= 4 ? 4 : 0
                let least = options.window > 0 ? max(start, place + 1 - options.window) : start
                for head in 0..<Self.heads {
                    let own = Array(queries[head * keyWidth..<(head + 1) * keyWidth])
                    let query = own[..<plain] + turned(Array(own[plain...]), place)
                    let scores = (least...place).map { key -> Double in
                        let part = head * (plain + value)
                        let keys = expanded[key][part..<part + plain] + turned(Array(joined[key][Self.rank...]), key)
                        return zip(query, keys).reduce(0) { $0 + $1.0 * $1.1 } / Double(keyWidth).squareRoot()
                    }
                    let sum = scores.reduce(0) { $0 + exp($1) }
                    mixed += (0..<value).map { column in
                        zip(least...place, scores).reduce(0) {
                            $0 + exp($1.1) / sum * expanded[$1.0][head * (plain + value) + plain + column]
                        }
                    }
                }
                expected += product(mixed, "output")
            }
        }
        expectClose(found, expected, options.testDescription)
    }
}
