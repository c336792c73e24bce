import ApusExperts
import ApusNN
import ApusTestSupport
import Testing

// Shape letters: D model width, F expert width.

extension LayerCase {
    /// Compares what the ranks of `world` computed with what one computed: output, gradient of x, and every parameter's
    /// gradient, joined from the parts that ranks have.
    func expectSame(_ results: [RankResult], as reference: RankResult, _ world: WorldShape) throws {
        let place = "\(self), \(world)"
        for slice in 0..<world.tensorRanks {
            let column = (0..<world.expertRanks).map { results[$0 * world.tensorRanks + slice] }
            expectClose(
                column.flatMap(\.output), reference.output.map(Double.init), within: 1e-5, "\(place), output")
            expectClose(
                column.flatMap(\.inputGradient), reference.inputGradient.map(Double.init), within: 1e-5,
                "\(place), gradient of x")
            for (name, gradient) in reference.gradients where !isExpert(name) {
                var sum = Array(repeating: Float(0), count: gradient.values.count)
                for rank in column {
                    for (index, value) in try #require(rank.gradients[name]).values.enumerated() { sum[index] += value }
                }
                expectClose(sum, gradient.values.map(Double.init), within: 1e-5, "\(place), \(name), slice \(slice)")
            }
        }
        for (name, gradient) in reference.gradients where isExpert(name) {
            let holders = results.compactMap { $0.gradients[name] }
            // Slices are joined; of a whole expert every tensor rank has the part that its own rows make.
            let copies = max(world.expertDegree / configuration.experts, 1)
            #expect(holders.count == copies * (world.spansTensor ? 1 : world.tensorRanks), "\(place), \(name)")
            expectClose(joined(holders, name), gradient.values.map(Double.init), within: 1e-5, "\(place), \(name)")
        }
    }

    func isExpert(_ name: String) -> Bool { name.first?.isNumber ?? false }

    /// The whole of a matrix of an expert, of which each holder has a part; what several have is added.
    private func joined(_ holders: [(values: [Float], shard: Shard?)], _ name: String) -> [Float] {
        let (rows, columns) =
            name.hasSuffix("down") ? (width, configuration.width) : (configuration.width, width)
        var whole = Array(repeating: Float(0), count: rows * columns)
        for holder in holders {
            let shard = holder.shard ?? Shard(dimension: 0, range: 0..<rows)
            let run = shard.dimension == 1 ? shard.range.count : columns
            for (index, value) in holder.values.enumerated() {
                let row = index / run + (shard.dimension == 0 ? shard.range.lowerBound : 0)
                let column = index % run + (shard.dimension == 1 ? shard.range.lowerBound : 0)
                whole[row * columns + column] += value
            }
        }
        return whole
    }
}
