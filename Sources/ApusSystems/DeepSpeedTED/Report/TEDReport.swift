public import ApusKernels

/// Everything that is counted and measured of DeepSpeed-TED on one machine.
public struct TEDReport: Sendable {
    /// Where it was made, in words.
    public let place: String
    /// Traffic, state and times of ranks.
    public let ranks: RanksReport
    /// The optimizer's step of a shard; empty when it was not measured.
    public let optimizer: [OptimizerSpike]
    /// Parameters of that shard.
    public let shard: Int
    /// The largest bases under a limit; empty when none was searched for.
    public let largest: [LargestBase]

    /// A report of these parts.
    public init(
        place: String, ranks: RanksReport, optimizer: [OptimizerSpike] = [], shard: Int = 0,
        largest: [LargestBase] = []
    ) {
        self.place = place
        self.ranks = ranks
        self.optimizer = optimizer
        self.shard = shard
        self.largest = largest
    }

    /// Measures all of it on ranks that are threads of this process.
    ///
    /// - Parameters:
    ///   - shard: Parameters of the optimizer's shard.
    ///   - limit: Bytes of each rank in the search for the largest base.
    ///   - backend: What steps the optimizer's shard.
    /// - Throws: ``TEDError``; what layouts and steps throw.
    public static func inProcess(
        _ bench: TEDBench, timed: Int, shard: Int, limit: Int, place: String, backend: any Backend
    ) throws -> TEDReport {
        TEDReport(
            place: place, ranks: try .inProcess(bench, timed: timed),
            optimizer: try OptimizerSpike.measure(parameters: shard, backend: backend), shard: shard,
            largest: try TEDBench.forLargest.map { try LargestBase.search($0, limit: limit) })
    }

    /// Whether all that is counted is as expected: traffic, state within 2 %, equal weights of all optimizer steps, and
    /// the largest bases within 10 %.
    public var isAsExpected: Bool {
        ranks.agrees && ranks.states.allSatisfy(\.isWithinTolerance) && optimizer.agree
            && largest.allSatisfy(\.isWithinTolerance)
    }
}

extension StateRow {
    /// 2 %, of each purpose: tensors of the closed form, and the allocator's count of the formula in its size classes.
    public var isWithinTolerance: Bool {
        let pairs = [(measured.tensors, paper), (measured.tensors, formula), (measured.whole, blocks)]
        return pairs.allSatisfy { found, wanted in
            [\StateBytes.parameters, \.gradients, \.optimizerState].allSatisfy { purpose in
                abs(found[keyPath: purpose] - wanted[keyPath: purpose]) * 50 <= wanted[keyPath: purpose]
            }
        }
    }
}

extension LargestBase {
    /// 10 % of the parameters.
    public var isWithinTolerance: Bool { abs(foretoldBase - foundBase) * 10 <= foundBase }
}

extension TEDBench {
    /// The benches that a limit is searched with: the same base and experts on eight ranks, without tensor parallelism
    /// and with 4 ranks for each matrix.
    public static var forLargest: [TEDBench] {
        [(1, 4), (4, 2)].map { tensor, expert in
            var bench = TEDBench()
            (bench.ranks, bench.tensor, bench.expert, bench.expertsPerRank) = (8, tensor, expert, 4 / expert)
            (bench.sequence, bench.microBatch) = (32, 1)
            return bench
        }
    }
}
