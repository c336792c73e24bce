import ApusTestSupport
import Testing

@testable import ApusParallel

/// Layouts that cannot be, and what is proposed in their place.
struct RefusalTests {
    /// 16 heads, 4 of keys, an odd vocabulary, 8 experts of width 96.
    static let model = Workload(
        heads: 16, keyValueHeads: 4, vocabulary: 257, layers: [.dense(width: 192), .experts(8, width: 96)],
        batch: Workload.Batch(sequences: 16))

    private func refusal(
        _ configuration: LayoutConfiguration, ranks: Int, _ workload: Workload? = model
    ) throws -> LayoutError {
        let error = #expect(throws: LayoutError.self) { try configuration.layout(ranks: ranks, for: workload) }
        return try #require(error)
    }

    @Test
    func `a tensor degree that does not divide the ranks`() throws {
        let error = try refusal(LayoutConfiguration(tensor: 3), ranks: 16)
        #expect(error.key == "layout.tensor")
        #expect(
            error.description == """
                layout.tensor is 3, which does not divide 16 ranks: \
                the nearest layout that works is 16 ranks as tensor 4, expert 1, data 4
                """)
    }

    @Test
    func `a data degree that leaves ranks over`() throws {
        let error = try refusal(LayoutConfiguration(tensor: 2, data: 4), ranks: 16)
        #expect(
            error.description == """
                layout.data is 4, which with tensor 2 does not make the 16 ranks of this run: \
                the nearest layout that works is 16 ranks as tensor 2, expert 1, data 8; or start 8 ranks
                """)
    }

    @Test
    func `an expert degree that does not divide the data degree`() throws {
        let error = try refusal(LayoutConfiguration(tensor: 4, expert: .uniform(8)), ranks: 16)
        #expect(error.key == "layout.expert")
        #expect(error.reason == "is 8, which does not divide the data degree 4")
        #expect(error.nearest?.description == "16 ranks as tensor 4, expert 4, data 4")
        // Where experts are whole, the whole world has room for it.
        let whole = LayoutConfiguration(tensor: 4, expert: .uniform(8), expertTensor: false)
        #expect(
            try whole.layout(ranks: 16, for: Self.model).description
                == "16 ranks as tensor 4, expert 8, data 4, expert_tensor false")
    }

    @Test
    func `experts that ranks cannot share evenly`() throws {
        let six = Workload(heads: 12, vocabulary: 257, layers: [.experts(6, width: 96)])
        let error = try refusal(LayoutConfiguration(expert: .uniform(4)), ranks: 12, six)
        #expect(
            error.description == """
                layout.expert is 4, which neither divides the 6 experts of layer 0 nor is a multiple of them: \
                the nearest layout that works is 12 ranks as tensor 1, expert 3, data 12
                """)
    }

    @Test
    func `slices that the experts' width cannot be cut into`() throws {
        let two = Workload(heads: 16, vocabulary: 257, layers: [.experts(2, width: 12)])
        // 2 experts on 8 ranks are 4 slices of 3; with tensor 2 they would be 8.
        #expect(try LayoutConfiguration(expert: .uniform(8)).layout(ranks: 16, for: two).data == 16)
        let error = try refusal(LayoutConfiguration(tensor: 2, expert: .uniform(8)), ranks: 16, two)
        #expect(error.key == "layout.expert")
        #expect(error.reason == "is 8: 4 x tensor 2 slices of each expert do not divide the width 12 of layer 0's")
        #expect(error.alternative == "set layout.expert_tensor to false")
        #expect(error.nearest?.description == "16 ranks as tensor 2, expert 4, data 8")
    }

    @Test
    func `heads, widths and vocabularies that a tensor group cannot share`() throws {
        let heads = try refusal(LayoutConfiguration(tensor: 8), ranks: 16)
        #expect(heads.reason == "is 8, which does not divide the model's 4 key and value heads")
        #expect(heads.nearest?.tensor == 4)
        let narrow = Workload(heads: 16, vocabulary: 3, layers: [.dense(width: 6)])
        #expect(
            try refusal(LayoutConfiguration(tensor: 4), ranks: 4, narrow).reason
                == "is 4, more than the model's 3 vocabulary entries")
        let odd = Workload(heads: 16, vocabulary: 257, layers: [.dense(width: 6), .experts(4, width: 8, dense: [10])])
        #expect(
            try refusal(LayoutConfiguration(tensor: 4), ranks: 4, odd).reason
                == "is 4, which does not divide the width 6 of layer 0's dense part")
        let shared = Workload(heads: 16, vocabulary: 257, layers: [.experts(4, width: 8, dense: [10])])
        #expect(
            try refusal(LayoutConfiguration(tensor: 4), ranks: 4, shared).reason
                == "is 4, which does not divide the width 10 of layer 0's dense part")
        let experts = Workload(heads: 16, vocabulary: 257, layers: [.experts(4, width: 6)])
        let error = try refusal(LayoutConfiguration(tensor: 4), ranks: 4, experts)
        #expect(error.key == "layout.tensor")
        #expect(error.alternative == "set layout.expert_tensor to false")
    }

    @Test
    func `a batch that data ranks cannot share evenly`() throws {
        let model = Workload(
            heads: 16, vocabulary: 257, layers: [.experts(8, width: 96)],
            batch: Workload.Batch(sequences: 24, microBatch: 2, group: 2))
        let error = try refusal(LayoutConfiguration(), ranks: 8, model)
        #expect(
            error.description == """
                training.batch is 24, which does not give 8 data ranks equally many groups of 2 sequences: \
                the nearest layout that works is 8 ranks as tensor 2, expert 1, data 4; or use training.batch 16
                """)
        let micro = Workload(
            heads: 16, vocabulary: 257, layers: [.experts(8, width: 96)],
            batch: Workload.Batch(sequences: 24, microBatch: 4))
        let uneven = try refusal(LayoutConfiguration(), ranks: 4, micro)
        #expect(uneven.key == "training.micro_batch")
        #expect(uneven.alternative == "use training.micro_batch 3")
    }

    @Test
    func `degrees of layers that do not have them`() throws {
        let short = try refusal(LayoutConfiguration(expert: .perLayer([2])), ranks: 4)
        #expect(short.reason == "lists 1 degrees for a model of 2 layers")
        #expect(short.nearest?.expert == .perLayer([1, 2]))
        let dense = try refusal(LayoutConfiguration(expert: .perLayer([2, 4])), ranks: 4)
        #expect(dense.reason == "is 2 in layer 0, which has no experts")
        #expect(dense.nearest?.expert == .perLayer([1, 4]))
        let none = Workload(heads: 16, vocabulary: 257, layers: [.dense(width: 8)])
        #expect(
            try refusal(LayoutConfiguration(expert: .uniform(2)), ranks: 4, none).reason
                == "is 2, and no layer of the model has experts")
        #expect(try refusal(LayoutConfiguration(expert: .perLayer([])), ranks: 4, nil).key == "layout.expert")
    }

    @Test
    func `work that no layout fits is said to be so`() throws {
        let error = try refusal(
            LayoutConfiguration(), ranks: 4,
            Workload(
                heads: 1, vocabulary: 2, layers: [.dense(width: 1)],
                batch: Workload.Batch(sequences: 0)))
        #expect(error.nearest == nil)
        #expect(error.alternative == "use training.batch 4")
    }

    @Test
    func `a layout that was made without a model is checked against one later`() throws {
        let layout = try Layout.of(16, tensor: 8, expert: 2)
        #expect(throws: LayoutError.self) { try layout.check(Self.model) }
        try Layout.of(16, tensor: 4, expert: 2).check(Self.model)
    }

    /// Whatever is asked for is made, or refused with a layout that works and keeps all ranks if any layout can.
    @Test
    func `the nearest layout works`() throws {
        var generator = SeededGenerator(seed: 9)
        func pick<Element>(_ list: [Element]) -> Element { list[Int.random(in: 0..<list.count, using: &generator)] }
        var (made, refused, fewer) = (0, 0, 0)
        for _ in 0..<2000 {
            // Something that works, with up to three numbers changed.
            let (sample, workload) = try LayoutSamples.draw(&generator)
            var configuration = sample.configuration
            configuration.data = nil
            var ranks = sample.ranks
            let numbers = [-1, 0, 1, 1, 2, 2, 3, 4, 6, 8, 12, 16, 100, .max, .min]
            for _ in 0..<pick([1, 1, 2, 3]) {
                switch pick([0, 1, 2, 3, 4, 5]) {
                case 0: ranks = pick(numbers)
                case 1: configuration.tensor = pick(numbers)
                case 2: configuration.expert = .uniform(pick(numbers))
                case 3: configuration.expert = .perLayer(workload.layers.map { _ in pick(numbers) })
                case 4: configuration.data = pick(numbers)
                default: configuration.expertTensor.toggle()
                }
            }
            do {
                let layout = try configuration.layout(ranks: ranks, for: workload)
                #expect(layout.ranks == ranks)
                made += 1
            } catch {
                let nearest = try #require(error.nearest, "\(error)")
                try nearest.check(workload)
                #expect((nearest.expertTensor, nearest.order) == (configuration.expertTensor, configuration.order))
                refused += 1
                guard nearest.ranks != ranks, (1...100).contains(ranks) else { continue }
                fewer += 1
                for tensor in LayoutSamples.divisors(of: ranks) {
                    for degree in LayoutSamples.divisors(of: ranks) {
                        var other = configuration
                        (other.tensor, other.data) = (tensor, nil)
                        if case .uniform = other.expert { other.expert = .uniform(degree) }
                        if other.flaw(ranks: ranks, workload) == nil { Issue.record("\(error): \(other) fits") }
                    }
                }
            }
        }
        #expect(
            made > 100 && refused > 500 && fewer > 50, "\(made) made, \(refused) refused, \(fewer) with fewer ranks")
    }
}
