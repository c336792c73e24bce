import ApusTestSupport

@testable import ApusParallel

/// Layouts that work, of every kind, and work that fits them.
enum LayoutSamples {
    /// A layout and work that fits it, drawn from `generator`; few ranks, so that all of them can be looked at.
    static func draw(_ generator: inout SeededGenerator) throws -> (layout: Layout, workload: Workload) {
        func pick<Element>(_ list: [Element]) -> Element { list[Int.random(in: 0..<list.count, using: &generator)] }
        let tensor = pick([1, 1, 2, 3, 4])
        let data = pick([1, 2, 4, 6, 8, 12])
        let isWhole = pick([false, false, true])
        let degrees = divisors(of: isWhole ? tensor * data : data)
        let parts = isWhole ? 1 : tensor
        func mixture(_ degree: Int) -> Workload.FeedForward {
            // As many experts as ranks or a multiple, or the ranks a multiple of them.
            let experts = pick([degree, 2 * degree, 3 * degree] + divisors(of: degree))
            let slices = max(degree / experts, 1)
            return .experts(experts, width: pick([1, 2, 5]) * slices * parts, dense: pick([[], [2 * tensor]]))
        }
        let layers = pick([1, 2, 5])
        let expert: LayoutConfiguration.ExpertDegree
        let layerParts: [Workload.FeedForward]
        if pick([true, false]) {
            let degree = pick(degrees)
            expert = .uniform(degree)
            layerParts =
                [mixture(degree)] + (1..<layers).map { _ in pick([.dense(width: 3 * tensor), mixture(degree)]) }
        } else {
            let listed = (0..<layers).map { _ in pick(degrees) }
            expert = .perLayer(listed)
            layerParts = listed.map { $0 == 1 ? pick([.dense(width: tensor), mixture(1)]) : mixture($0) }
        }
        let group = pick([1, 2])
        let share = group * pick([1, 2, 3])
        let keys = pick([1, 2]) * tensor
        let workload = Workload(
            heads: keys * pick([1, 4]), keyValueHeads: keys, vocabulary: tensor + pick([0, 1, 7, 250]),
            layers: layerParts,
            batch: Workload.Batch(sequences: share * data, microBatch: pick([group, share, 1000]), group: group))
        let configuration = LayoutConfiguration(
            tensor: tensor, expert: expert, data: pick([nil, data]), expertTensor: !isWhole,
            order: pick(LayoutConfiguration.Order.allCases))
        return (try configuration.layout(ranks: tensor * data, for: workload), workload)
    }

    /// `count` samples, always the same.
    static func many(_ count: Int, seed: UInt64) throws -> [(layout: Layout, workload: Workload)] {
        var generator = SeededGenerator(seed: seed)
        return try (0..<count).map { _ in try draw(&generator) }
    }

    static func divisors(of count: Int) -> [Int] { (1...count).filter(count.isMultiple) }
}

extension Layout {
    /// The layout of `ranks` ranks with one expert degree, for the work that has no bounds.
    static func of(
        _ ranks: Int, tensor: Int = 1, expert: Int, expertTensor: Bool = true,
        order: LayoutConfiguration.Order = .expertBeforeData
    ) throws -> Layout {
        try LayoutConfiguration(tensor: tensor, expert: .uniform(expert), expertTensor: expertTensor, order: order)
            .layout(ranks: ranks)
    }
}
