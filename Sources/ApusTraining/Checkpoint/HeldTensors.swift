import ApusModels
import ApusNN
import ApusOptim
import ApusTensor

/// What one rank holds of the model and of the optimizer's state, as the other ranks learn of it.
struct HeldTensors: Sendable, Equatable {
    /// A parameter, or the part of it that is held.
    struct Weights: Sendable, Equatable {
        let name: String
        /// Extents of the whole.
        let shape: [Int]
        let shard: Shard?
        /// The type that files have.
        let type: DType
    }

    /// A piece of one kind of state of a parameter.
    struct State: Sendable, Equatable {
        let kind: String
        /// Which of ``HeldTensors/weights`` it belongs to.
        let parameter: Int
        /// The elements of what is held of the parameter.
        let elements: Range<Int>
        let type: DType
    }

    let weights: [Weights]
    let states: [State]
}

extension HeldTensors {
    /// What this rank holds.
    init(_ model: Transformer, _ optimizer: AdamW) {
        let parameters = model.store.parameters
        weights = parameters.map { parameter in
            Weights(
                name: parameter.name, shape: parameter.shape.dimensions, shard: parameter.shard,
                type: model.store.precision.effective(for: parameter.role).modelType)
        }
        let places = Dictionary(uniqueKeysWithValues: parameters.enumerated().map { ($1.name, $0) })
        states = optimizer.statePieces().map { piece in
            State(
                kind: piece.kind, parameter: places[piece.parameter.name] ?? 0, elements: piece.elements,
                type: piece.tensor.dtype)
        }
    }

    private static let between: Character = "\u{1F}"
    private static let end: Character = "\u{1E}"

    /// One line for each, in a form that ``init(text:)`` reads.
    var text: String {
        let lines =
            weights.map { entry in
                let shard = entry.shard.map { [$0.dimension, $0.range.lowerBound, $0.range.upperBound] } ?? []
                return [[entry.name], [entry.type.rawValue].map(String.init), [numbers(entry.shape), numbers(shard)]]
            }
            + states.map { entry in
                let range = [entry.parameter, entry.elements.lowerBound, entry.elements.upperBound]
                return [[entry.kind], [entry.type.rawValue].map(String.init), [numbers(range)]]
            }
        return lines.map { $0.joined().joined(separator: String(Self.between)) }.joined(separator: String(Self.end))
    }

    private func numbers(_ values: [Int]) -> String { values.map(String.init).joined(separator: " ") }

    /// Reads the ``text`` of another rank; `nil` for one that is none.
    init?(text: String) {
        var weights: [Weights] = []
        var states: [State] = []
        for line in text.split(separator: Self.end) {
            let fields = line.split(separator: Self.between, omittingEmptySubsequences: false)
            guard fields.count >= 3, let type = UInt8(fields[1]).flatMap(DType.init(rawValue:)) else { return nil }
            let lists = fields[2...].map { $0.split(separator: " ").compactMap { Int($0) } }
            if lists.count == 2 {
                let cut = lists[1]
                guard cut.isEmpty || cut.count == 3 && lists[0].indices.contains(cut[0]) && cut[1] <= cut[2] else {
                    return nil
                }
                let shard = cut.isEmpty ? nil : Shard(dimension: cut[0], range: cut[1]..<cut[2])
                weights.append(Weights(name: String(fields[0]), shape: lists[0], shard: shard, type: type))
            } else {
                let range = lists[0]
                guard range.count == 3, weights.indices.contains(range[0]), range[1] <= range[2] else { return nil }
                states.append(
                    State(kind: String(fields[0]), parameter: range[0], elements: range[1]..<range[2], type: type))
            }
        }
        (self.weights, self.states) = (weights, states)
    }
}
