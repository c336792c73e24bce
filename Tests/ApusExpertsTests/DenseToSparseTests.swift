import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

// Shape letters: T tokens, D model width, E experts, K choices per token.

/// A gate that begins with all experts and ends with one.
@Suite struct DenseToSparseTests {
    static let schedule = DenseToSparse(start: 2, end: 0.5, steps: 3, threshold: 0.2)

    private func fixture(threshold: Float = 0.2, index: Int = 0) throws -> LayerFixture {
        var schedule = Self.schedule
        schedule.threshold = threshold
        let fixture = try LayerFixture(
            MoEConfiguration(
                experts: 6, choices: 6, width: 5, router: RouterConfiguration(annealing: schedule),
                losses: RouterLosses(balance: 1)), width: 9, index: index)
        try fixture.assign("gate", randomValues(54, seed: 4, scale: 0.5))
        return fixture
    }

    /// softmax((logits + noise) / temperature) of each token.
    private func scores(_ fixture: LayerFixture, _ x: Tensor, temperature: Float, noise: RandomStream?) throws
        -> [Float]
    {
        let backend = fixture.backend
        let (logits, draws) = (
            try backend.empty(Shape(x.shape[0], 6), .f32), try backend.zeros(Shape(x.shape[0], 6), .f32)
        )
        try fixture.router.weight.withWeights(on: backend.stream) {
            try backend.matMul(x.matrix, $0.transpose, into: logits)
        }
        if let noise { try backend.fillRandom(draws, .gumbel, stream: noise, first: 0) }
        try backend.add(logits, draws, into: logits)
        try backend.scale(logits, by: 1 / temperature, into: logits)
        try backend.softmax(logits, into: logits)
        return logits.floats()
    }

    @Test func `the temperature falls by the same factor in each step`() {
        #expect((1...5).map { Self.schedule.temperature(step: $0) } == [2, 1, 0.5, 0.5, 0.5])
        #expect((1...5).map { Self.schedule.isSparse(step: $0) } == [false, false, false, true, true])
        #expect(Self.schedule.temperature(step: nil) == 0.5 && Self.schedule.isSparse(step: nil))
        #expect(DenseToSparse(start: 2, end: 0.5, steps: 1).temperature(step: 1) == 2)
    }

    @Test(arguments: [1, 2])
    func `without a threshold every expert computes every token`(_ step: Int) throws {
        let fixture = try fixture(threshold: 0)
        let x = try fixture.input(50)
        let pass = try LayerPass(fixture, x, LayerPass.Setting(step: step))
        let stream = RandomStream(seed: 3, purpose: .routerGumbel, layer: 0, step: step)
        let scores = try scores(fixture, x, temperature: step == 1 ? 2 : 1, noise: stream)
        let weights = pass.routing.weights.tensor.floats()
        for token in 0..<50 {
            let row = pass.chosen[token * 6..<token * 6 + 6]
            #expect(Set(row) == Set(0..<6))
            for (choice, expert) in row.enumerated() {
                #expect(abs(weights[token * 6 + choice] - scores[token * 6 + expert]) < 1e-6)
            }
        }
        let choices = pass.report.layers[0].choices.doubles
        #expect(choices == Array(repeating: 50, count: 6))
    }

    @Test func `experts below the threshold are skipped, the best never`() throws {
        let fixture = try fixture(threshold: 0.3)
        let x = try fixture.input(50)
        let pass = try LayerPass(fixture, x, LayerPass.Setting(step: 2))
        let scores = try scores(
            fixture, x, temperature: 1, noise: RandomStream(seed: 3, purpose: .routerGumbel, layer: 0, step: 2))
        var alone = 0
        for token in 0..<50 {
            let row = scores[token * 6..<token * 6 + 6]
            let best = row.indices.max { row[$0] < row[$1] }.map { $0 - token * 6 }
            let expected = (0..<6).filter { row[token * 6 + $0] >= 0.3 || $0 == best }
            let found = pass.kept[token * 6..<token * 6 + 6].filter { $0 >= 0 }
            #expect(Set(found) == Set(expected), "token \(token)")
            alone += row.allSatisfy { $0 < 0.3 } ? 1 : 0
        }
        #expect(alone > 0, "no token's best expert was below the threshold")
        // Loads count what is computed.
        let rows = pass.report.layers[0].rows.array(of: Int32.self).map(Double.init)
        #expect(pass.report.layers[0].choices.doubles == rows)
    }

    @Test(arguments: [nil, 4, 100])
    func `in the end a token has one expert and no noise`(_ step: Int?) throws {
        let fixture = try fixture()
        let x = try fixture.input(50)
        let pass = try LayerPass(fixture, x, LayerPass.Setting(step: step))
        let scores = try scores(fixture, x, temperature: 0.5, noise: nil)
        #expect(pass.chosen.count == 50)
        for token in 0..<50 {
            let row = scores[token * 6..<token * 6 + 6]
            #expect(row[token * 6 + pass.chosen[token]] == row.max())
            #expect(abs(pass.routing.weights.tensor.floats()[token] - (row.max() ?? 0)) < 1e-6)
        }
    }

    @Test(arguments: [1, 17])
    func `draws do not know how the batch is cut`(_ cut: Int) throws {
        let fixture = try fixture()
        let x = try fixture.input(50)
        let whole = try LayerPass(fixture, x, LayerPass.Setting(step: 2))
        for range in [0..<cut, cut..<50] {
            let layout = try fixture.layout([range.count], first: range.lowerBound)
            let part = try LayerPass(fixture, x[range], LayerPass.Setting(layout: layout, step: 2))
            #expect(part.kept == Array(whole.kept[6 * range.lowerBound..<6 * range.upperBound]))
        }
    }
}
