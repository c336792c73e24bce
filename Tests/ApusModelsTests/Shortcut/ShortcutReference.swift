import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusTensor
import ApusTestSupport
import Glibc

// Shape letters: T tokens, D model width, F hidden width, E experts, K choices per token.

/// A decoder with a shortcut computed token by token from the formulas of ScMoE (Cai et al. 2024, the architecture's section
/// and its variants), in double precision. RMSNorm, learned positions, as many key heads as query heads, ReLU everywhere.
///
/// `h^MH_l = h_{l-1} + Attn_l(h_{l-1})`, then for a mixture `h_l = h^MH_l + join(SE(h^MH_l), sum of G(s)_i E_i(s))` with s one of
/// the earlier states, each state behind a norm of its own.
struct ShortcutReference {
    let model: Transformer
    /// How many tokens of a dual layer's second pass would have had an expert of the first, and how many not.
    private(set) var (clashes, others) = (0, 0)

    private var configuration: ModelConfiguration { model.configuration }
    private typealias Rows = [[Double]]

    init(_ model: Transformer) { self.model = model }

    private func weights(_ name: String) throws -> [Double] {
        guard let parameter = model.store[name] else { throw TransformerFixture.NoSuchParameter(name: name) }
        return try parameter.withWeights(on: .cpu) { $0.doubles }
    }

    /// The normalised states (T, D) of one sequence.
    mutating func states(_ tokens: [Int]) throws -> [Double] {
        let (width, table) = (configuration.width, try weights("model.embed_tokens.weight"))
        let places = try weights("model.embed_positions.weight")
        var h: Rows = tokens.enumerated().map { place, id in
            (0..<width).map { table[id * width + $0] + places[place * width + $0] }
        }
        var inputs: [Rows] = []
        var afterAttention: [Rows] = []
        for layer in 0..<configuration.layers {
            let prefix = "model.layers.\(layer)"
            inputs.append(h)
            h = sum(h, try attention(norm(h, "\(prefix).input_layernorm"), "\(prefix).self_attn"))
            afterAttention.append(h)
            let present = try norm(h, "\(prefix).post_attention_layernorm")
            guard let moe = configuration.moe(layer: layer) else {
                h = sum(h, try feedForward(present, "\(prefix).mlp"))
                continue
            }
            guard let shortcut = moe.shortcut else { fatalError("every mixture of these models has a shortcut") }
            let source =
                switch shortcut.position.rawValue {
                case 1: inputs[layer]
                case 2: afterAttention[layer - 1]
                default: inputs[layer - 1]
                }
            let earlier = try norm(source, "\(prefix).shortcut_layernorm")
            h = sum(h, try mixture(earlier, present, moe, "model.layers.\(moe.parametersOf ?? layer).mlp"))
        }
        return try norm(h, "model.norm").flatMap(\.self)
    }

    private mutating func mixture(
        _ earlier: Rows, _ present: Rows, _ moe: MoEConfiguration, _ prefix: String
    ) throws -> Rows {
        var result: Rows = []
        for (before, now) in zip(earlier, present) {
            let first = try routed(before, moe, prefix, without: [])
            var y = first.output
            if moe.shortcut?.isDual == true {
                let free = try routed(now, moe, prefix, without: []).chosen
                if Set(free).isDisjoint(with: first.chosen) { others += 1 } else { clashes += 1 }
                add(1, try routed(now, moe, prefix, without: first.chosen).output, to: &y)
            } else if moe.sharedWidth > 0 {
                let shared = try feedForward([now], "\(prefix).shared_expert")[0]
                switch moe.sharedCombination {
                case .sum: add(1, shared, to: &y)
                case .gate:
                    let logit = product(try weights("\(prefix).coefficient.weight"), now)[0]
                    add(1 / (1 + exp(-logit)), shared, to: &y)
                case .softmax:
                    let parts = softmax(product(try weights("\(prefix).coefficient.weight"), now))
                    y = y.map { parts[0] * $0 }
                    add(parts[1], shared, to: &y)
                }
            }
            result.append(y)
        }
        return result
    }

    /// The chosen experts of a token, none of `excluded`, and their weighted results.
    private func routed(
        _ x: [Double], _ moe: MoEConfiguration, _ prefix: String, without excluded: [Int]
    ) throws -> (chosen: [Int], output: [Double]) {
        let shares = softmax(product(try weights("\(prefix).gate.weight"), x))
        let ranked = shares.indices.filter { !excluded.contains($0) }.sorted { shares[$0] > shares[$1] }
        let chosen = Array(ranked.prefix(moe.choices))
        var y = Array(repeating: 0.0, count: x.count)
        for expert in chosen { add(shares[expert], try feedForward([x], "\(prefix).experts.\(expert)")[0], to: &y) }
        return (chosen, y)
    }

    private func feedForward(_ x: Rows, _ prefix: String) throws -> Rows {
        let (up, down) = (try weights("\(prefix).up_proj.weight"), try weights("\(prefix).down_proj.weight"))
        return x.map { product(down, product(up, $0).map { max($0, 0) }) }
    }

    private func attention(_ x: Rows, _ prefix: String) throws -> Rows {
        let width = configuration.headWidth
        let maps = try ["q", "k", "v", "o"].map { try weights("\(prefix).\($0)_proj.weight") }
        let (queries, keys, values) = (
            x.map { product(maps[0], $0) }, x.map { product(maps[1], $0) }, x.map { product(maps[2], $0) }
        )
        return x.indices.map { place in
            var mixed: [Double] = []
            for head in 0..<configuration.heads {
                let part = head * width..<(head + 1) * width
                let scores = (0...place).map { key in
                    zip(queries[place][part], keys[key][part]).reduce(0) { $0 + $1.0 * $1.1 }
                        / Double(width).squareRoot()
                }
                var sum = Array(repeating: 0.0, count: width)
                for (key, share) in softmax(scores).enumerated() { add(share, Array(values[key][part]), to: &sum) }
                mixed += sum
            }
            return product(maps[3], mixed)
        }
    }

    private func norm(_ x: Rows, _ name: String) throws -> Rows {
        let scale = try weights("\(name).weight")
        return x.map { row in
            let mean = row.reduce(0) { $0 + $1 * $1 } / Double(row.count)
            let root = (mean + Double(configuration.normEpsilon)).squareRoot()
            return row.indices.map { row[$0] / root * scale[$0] }
        }
    }

    private func product(_ matrix: [Double], _ vector: [Double]) -> [Double] {
        stride(from: 0, to: matrix.count, by: vector.count).map { begin in
            vector.indices.reduce(0) { $0 + matrix[begin + $1] * vector[$1] }
        }
    }

    private func sum(_ left: Rows, _ right: Rows) -> Rows { zip(left, right).map { zip($0, $1).map(+) } }

    private func add(_ factor: Double, _ x: [Double], to y: inout [Double]) {
        for index in y.indices { y[index] += factor * x[index] }
    }

    private func softmax(_ x: [Double]) -> [Double] {
        let powers = x.map { exp($0 - (x.max() ?? 0)) }
        let sum = powers.reduce(0, +)
        return powers.map { $0 / sum }
    }
}
