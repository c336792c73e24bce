import ApusCollectives
import ApusData
import ApusExperts
public import ApusKernels
import ApusModels
import ApusNN
public import ApusParallel
import ApusTensor
import Glibc

// Shape letters: T tokens, E experts, K choices per token.

/// The same data on one rank and on a layout, number by number.
///
/// 1. *Replayed*: every pass takes the routing of the one-rank run, so that a token whose two best experts are nearly
///    equal cannot hide what else differs. Loss and every parameter's gradient, then the weights after a few steps of
///    plain descent and of AdamW.
/// 2. *Free*: each routing choice that differs, with the difference of the scores that decided.
///
/// Every number is compared on the rank that has it, against its place in the whole; what is held nowhere is found.
public struct LayoutComparison {
    private let reference: LayoutReference
    private let recipe: Recipe
    private let groups: ParallelGroups
    private let runs: LayoutRun

    /// A comparison of the layout of `groups` with `reference`, which is that of the same recipe and batches.
    ///
    /// - Parameters:
    ///   - recipe: The recipe with the layout's keys.
    ///   - device: Where it runs, as the reference did; `nil` for the processor, on `threads`.
    public init(
        _ recipe: Recipe, reference: LayoutReference, over groups: ParallelGroups, threads: Int,
        on device: (any Backend)? = nil
    ) {
        var recipe = recipe
        recipe.training.optimizer.epsilon = reference.recipe.training.optimizer.epsilon
        self.recipe = recipe
        self.reference = reference
        self.groups = groups
        runs = LayoutRun(batches: reference.batches, threads: threads, device: device, groups: groups)
    }

    /// Runs it; every rank takes part and is given the same findings.
    ///
    /// - Throws: ``CollectiveError``, ``NonFiniteError``, ``TensorError``.
    public func callAsFunction() throws -> LayoutFindings {
        var losses: [LayoutFindings.Loss] = []
        func note(_ what: String, _ step: Int, _ found: Float, _ expected: Float) {
            losses.append(LayoutFindings.Loss(run: what, step: step, found: found, expected: expected))
        }
        let first = try runs.start(recipe)
        let replays = canReplay
        func replay(_ run: LayoutReference.Run, _ step: Int) -> TrainStep.RoutingSource {
            { sequences in
                guard replays, let decisions = run.routing[step - 1][sequences] else { return nil }
                return RoutingTrace(replaying: decisions)
            }
        }
        let loss = try runs.accumulate(first, step: 1, routing: replay(reference.descent, 1))
        note("descent", 1, loss, reference.descent.losses[0])
        let gradients = try compare(first.model.store.gradientPieces(), first.backend, with: reference.gradients)
        try runs.descend(first, rate: reference.descentRate)
        for step in 2...LayoutReference.steps {
            let loss = try runs.accumulate(first, step: step, routing: replay(reference.descent, step))
            note("descent", step, loss, reference.descent.losses[step - 1])
            try runs.descend(first, rate: reference.descentRate)
        }
        let descended = try compare(first.model.store.weightPieces(), first.backend, with: reference.descent.weights)
        let second = try runs.start(recipe)
        for step in 1...LayoutReference.steps {
            let loss = try runs.step(second, step: step, routing: replay(reference.adamW, step))
            note("AdamW", step, loss, reference.adamW.losses[step - 1])
        }
        let stepped = try compare(second.model.store.weightPieces(), second.backend, with: reference.adamW.weights)
        return LayoutFindings(
            layout: groups.layout,
            precision: recipe.training.precision,
            parameters: reference.names.enumerated().map { index, name in
                let scale = scale(of: name)
                return LayoutFindings.Parameter(
                    name: name, role: reference.roles[name]?.role ?? .dense,
                    gradientNorm: (reference.gradients[scale] ?? []).norm,
                    gradient: gradients[index], descentNorm: (reference.descent.weights[scale] ?? []).norm,
                    descent: descended[index], adamWNorm: (reference.adamW.weights[scale] ?? []).norm,
                    adamW: stepped[index])
            },
            losses: losses, choices: try freeChoices(), isReplayed: replays, hasKinks: hasKinks)
    }

    private var hasKinks: Bool {
        recipe.model.feedForward.contains { layer in
            switch layer {
            case .dense: recipe.model.activation == .relu
            case .moe(let moe): moe.activation == .relu
            }
        }
    }

    /// Whether the one-rank run had a pass for each of this layout's, whose routing it can take.
    private var canReplay: Bool {
        let passes = BatchShare(
            groups.place, batch: recipe.training.batch, microBatch: recipe.training.microBatch
        ).passes
        return passes.allSatisfy { reference.descent.routing[0][$0] != nil }
    }

    // MARK: Values

    /// The parameter whose norm a difference is to be seen beside: `name` itself, but for one whose gradient is zero.
    ///
    /// Without rotation a bias of the keys moves all scores of a query alike. Its derivative is 0, what is computed is the
    /// rounding of a sum, and the sums are as large as those of the queries' bias.
    private func scale(of name: String) -> String {
        guard recipe.model.position == .learned, name.hasSuffix("k_proj.bias") else { return name }
        return String(name.dropLast("k_proj.bias".count)) + "q_proj.bias"
    }

    /// The norm of the difference of each parameter, in the order of names: over all ranks, each element as often as it
    /// is held. Infinite where something is no number, or where part of a parameter is held by nobody.
    private func compare(
        _ pieces: [ParameterStore.Piece], _ backend: any Backend, with expected: [String: [Float]]
    ) throws -> [Double] {
        let names = reference.names
        let places = Dictionary(uniqueKeysWithValues: names.enumerated().map { ($1, $0) })
        var squares = Array(repeating: 0.0, count: names.count)
        var held = Array(repeating: 0, count: names.count)
        for piece in pieces {
            guard let place = places[piece.parameter.name], let whole = expected[piece.parameter.name] else { continue }
            let values = try backend.floats(piece.tensor)
            for run in piece.parameter.runs(of: piece.elements) {
                for index in 0..<run.held.count {
                    let found = values[run.held.lowerBound - piece.elements.lowerBound + index]
                    let difference = Double(found) - Double(whole[run.whole + index])
                    squares[place] += difference * difference
                }
            }
            held[place] += values.count
        }
        let bits = squares.map { Int(bitPattern: UInt($0.bitPattern)) }
        let all = try groups.world.collected(bits + held)
        return names.indices.map { index in
            let total = all.reduce(0.0) { $0 + Double(bitPattern: UInt64(UInt(bitPattern: $1[index]))) }
            let count = all.reduce(0) { $0 + $1[names.count + index] }
            let whole = expected[names[index]]?.count ?? 0
            // Every element is held equally often.
            guard total.isFinite, count >= whole, whole > 0, count.isMultiple(of: whole) else { return .infinity }
            return (total / Double(count / whole)).squareRoot()
        }
    }

    // MARK: Choices

    /// The choices of a free first step that differ from those of one rank.
    private func freeChoices() throws -> LayoutFindings.Choices {
        let free = try runs.start(recipe)
        let traces = runs.traces(of: free)
        for trace in traces.values { trace.keepsScores = true }
        _ = try runs.accumulate(free, step: 1) { traces[$0] }
        let length = reference.batches[0].targets.count / recipe.training.batch
        var compared = 0
        var differing: [[Int]] = []
        for (sequences, trace) in traces {
            for (layer, decision) in trace.recorded {
                guard let (expected, first) = try expectedIDs(layer, sequences, length: length, free.backend)
                else { continue }
                let found = try free.backend.array(decision.ids, of: Int32.self)
                let choices = decision.choices
                let scores = trace.scores[layer]
                for token in 0..<decision.tokenCount {
                    let own = found[token * choices..<(token + 1) * choices]
                    let other = expected[(first + token) * choices..<(first + token + 1) * choices]
                    compared += choices
                    let gained = Set(own).subtracting(other)
                    guard !gained.isEmpty else { continue }
                    let lost = Set(other).subtracting(own)
                    // Without scores nothing excuses the difference, nor where a choice was taken or left by a threshold.
                    let isLeft = gained.contains(-1) || lost.contains(-1)
                    let row = try isLeft ? nil : scores.map { try free.backend.floats($0[token..<token + 1]) }
                    let gap =
                        row.map { row in self.gap(gained.map { row[Int($0)] }, lost.map { row[Int($0)] }) }
                        ?? Float.infinity
                    differing.append([
                        RoutingTrace.layer(ofKey: layer), sequences.lowerBound * length + token, Int(gap.bitPattern),
                    ])
                }
            }
        }
        return try collect(compared: compared, differing)
    }

    /// The one-rank run's choices of a layer for the tokens of `sequences`, and where they begin.
    private func expectedIDs(
        _ layer: Int, _ sequences: Range<Int>, length: Int, _ backend: any Backend
    ) throws -> ([Int32], first: Int)? {
        let passes = reference.descent.routing[0]
        guard let pass = passes.first(where: { $0.key.clamped(to: sequences) == sequences }),
            let decision = pass.value[layer]
        else { return nil }
        return (try backend.array(decision.ids, of: Int32.self), (sequences.lowerBound - pass.key.lowerBound) * length)
    }

    private func gap(_ gained: [Float], _ lost: [Float]) -> Float {
        zip(gained.sorted(), lost.sorted()).reduce(0) { max($0, abs($1.0 - $1.1)) }
    }

    /// The choices of all ranks, those of a tensor group once.
    private func collect(compared: Int, _ differing: [[Int]]) throws -> LayoutFindings.Choices {
        let isCounted = groups.place.tensor == 0
        let most = 1000
        let counts = try groups.world.collected([isCounted ? compared : 0, isCounted ? differing.count : 0])
        let rows = min(counts.map { $0[1] }.max() ?? 0, most)
        var list: [LayoutFindings.Choice] = []
        let padded = (0..<rows).flatMap { index in
            isCounted && index < differing.count ? differing[index] : [-1, -1, -1]
        }
        for part in try groups.world.collected(padded) {
            for row in 0..<rows where part[3 * row] >= 0 {
                list.append(
                    LayoutFindings.Choice(
                        layer: part[3 * row], token: part[3 * row + 1],
                        gap: Float(bitPattern: UInt32(part[3 * row + 2]))))
            }
        }
        return LayoutFindings.Choices(
            compared: counts.reduce(0) { $0 + $1[0] }, count: counts.reduce(0) { $0 + $1[1] },
            differing: list.sorted { ($1.gap, $0.layer, $0.token) < ($0.gap, $1.layer, $1.token) })
    }
}
