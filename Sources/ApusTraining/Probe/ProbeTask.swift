import ApusData
import ApusTensor

// Shape letters: B sequences of a batch, S tokens of a sequence, V symbols.

/// A small synthetic task that tells what a block can do before any text is read (MAD, Poli et al. 2024, section 3).
///
/// Only tokens whose answer the sequence, or the training, determines have a target. Ids below V are symbols; then come
/// a blank, a mark, and a question for each place.
public enum ProbeTask: String, Sendable, CaseIterable {
    /// Pairs of a key and a value, drawn anew for each sequence; at a key that came before, its value is asked.
    case recall
    /// Keys of one dictionary for all sequences, each before a blank at which its value is asked: what weights can hold.
    case memorise
    /// Symbols, then a mark, then a question for each place, answered by the symbol there. From the mark on nothing
    /// before it is seen: everything passes through one state.
    case compress
    /// Symbols strewn among blanks, then marks, at which the symbols are asked in their order.
    case copy

    /// Ids that a task of these sizes has.
    static func vocabulary(_ settings: ProbeSettings) -> Int { settings.symbols + 2 + settings.length / 2 }

    /// S: the whole length, or what of it the task can fill.
    func sequenceLength(_ settings: ProbeSettings) -> Int {
        self == .compress ? (settings.length - 1) / 2 * 2 + 1 : settings.length / 2 * 2
    }

    /// The share of answers that guessing gets right: values are V / 2 of the symbols in ``recall``, all elsewhere.
    func chance(_ settings: ProbeSettings) -> Double {
        1 / Double(self == .recall ? settings.symbols - settings.symbols / 2 : settings.symbols)
    }

    /// The B sequences of `draw`; the same for the same settings, whoever asks.
    ///
    /// - Parameter draw: the training step, or a number beyond all steps for sequences to measure with.
    func batch(_ settings: ProbeSettings, draw: Int) -> TokenBatch {
        let index = Self.allCases.firstIndex(of: self) ?? 0
        let stream = RandomStream(seed: settings.seed, purpose: .probe, layer: index, step: draw)
        var result = TokenBatch(inputs: [], targets: [])
        for sequence in 0..<settings.batch {
            var draws = Draws(stream: stream, next: UInt64(sequence) << 32)
            let (inputs, targets) = self.sequence(settings, &draws)
            result.inputs += inputs
            result.targets += targets
        }
        if self == .compress { result.documents = documents(settings) }
        return result
    }

    private func sequence(_ settings: ProbeSettings, _ draws: inout Draws) -> (inputs: [Int32], targets: [Int32]) {
        let (symbols, length) = (settings.symbols, sequenceLength(settings))
        let (blank, mark) = (Int32(symbols), Int32(symbols + 1))
        let none: Int32 = -1
        var (inputs, targets): ([Int32], [Int32]) = ([], [])
        switch self {
        case .recall:
            let keys = symbols / 2
            let values = (0..<keys).map { _ in Int32(keys + draws.integer(below: symbols - keys)) }
            var seen: Set<Int> = []
            for _ in 0..<length / 2 {
                let key = draws.integer(below: keys)
                inputs += [Int32(key), values[key]]
                targets += [seen.insert(key).inserted ? none : values[key], none]
            }
        case .memorise:
            let dictionary = RandomStream(seed: settings.seed, purpose: .probe, layer: Self.allCases.count)
            for _ in 0..<length / 2 {
                let key = draws.integer(below: symbols)
                var value = Draws(stream: dictionary, next: UInt64(key))
                inputs += [Int32(key), blank]
                targets += [none, Int32(value.integer(below: symbols))]
            }
        case .compress:
            let content = (0..<length / 2).map { _ in Int32(draws.integer(below: symbols)) }
            inputs = content + [mark] + content.indices.map { mark + 1 + Int32($0) }
            targets = Array(repeating: none, count: content.count + 1) + content
        case .copy:
            let content = (0..<length / 4).map { _ in Int32(draws.integer(below: symbols)) }
            let field = length - content.count
            // The places whose draws are lowest.
            let order = (0..<field).map { (draws.integer(below: 1 << 30), $0) }.sorted { $0 < $1 }
            let places = order.prefix(content.count).map(\.1).sorted()
            inputs = Array(repeating: blank, count: field) + Array(repeating: mark, count: content.count)
            for (place, symbol) in zip(places, content) { inputs[place] = symbol }
            targets = Array(repeating: none, count: field) + content
        }
        return (inputs, targets)
    }

    /// The mark ends a document that it still sees, and begins another, to which it is the first token.
    private func documents(_ settings: ProbeSettings) -> TokenBatch.Documents {
        let half = sequenceLength(settings) / 2
        let positions = (0...half).map(Int32.init) + (1...half).map(Int32.init)
        let firstKeys = Array(repeating: Int32(0), count: half + 1) + Array(repeating: Int32(half), count: half)
        return TokenBatch.Documents(
            positions: (0..<settings.batch).flatMap { _ in positions },
            firstKeys: (0..<settings.batch).flatMap { _ in firstKeys })
    }
}

/// Whole numbers drawn one after the other.
private struct Draws {
    let stream: RandomStream
    var next: UInt64

    mutating func integer(below bound: Int) -> Int {
        defer { next += 1 }
        return Int((UInt64(stream.word(at: next)) * UInt64(bound)) >> 32)
    }
}
