import ApusNN
import ApusTensor
import Testing

/// Where what a rank holds is in the whole.
@Suite struct ShardRunTests {
    /// The elements of a part of a range of one dimension, one by one.
    private func expected(_ shape: [Int], _ shard: Shard, _ elements: Range<Int>) -> [Int] {
        let count = shape.reduce(1, *)
        let inner = shape[(shard.dimension + 1)...].reduce(1, *)
        let held = (0..<count).filter { shard.range.contains($0 / inner % shape[shard.dimension]) }
        return Array(held[elements])
    }

    @Test(arguments: [0, 1, 2])
    func `runs name each held element once, in order`(dimension: Int) {
        let shape = [4, 6, 5]
        for range in [0..<2, 1..<3, 2..<4] {
            let shard = Shard(dimension: dimension, range: range)
            let count = shape.reduce(1, *) / shape[dimension] * range.count
            for elements in [0..<count, 0..<0, 3..<count - 2, count - 1..<count] {
                let runs = shard.runs(of: elements, in: shape)
                #expect(
                    runs.flatMap { run in run.held.indices.map { run.whole + $0 - run.held.lowerBound } }
                        == expected(shape, shard, elements))
                #expect(runs.flatMap { Array($0.held) } == Array(elements))
            }
        }
    }

    @Test func `what is whole is one run`() {
        let parameter = Parameter("whole", Shape(3, 4), initializer: .constant(0))
        #expect(parameter.runs(of: 2..<9) == [ShardRun(held: 2..<9, whole: 2)])
    }
}
