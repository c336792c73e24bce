import ApusTensor
import Glibc

/// One rank fails on purpose, so that it can be seen, on the machines at hand, whether all ranks end as they should.
public struct Rehearsal: Sendable, Equatable {
    /// How the rank fails.
    public enum Kind: String, Sendable, CaseIterable {
        /// It is killed (SIGKILL).
        case kill
        /// It is stopped (SIGSTOP), and lives.
        case stop
        /// It calls another operation than the others.
        case mismatch
        /// It is busy with something else, and does not make the call.
        case skip
        /// It throws an error.
        case fail
        /// It never joins the others.
        case absent
    }

    /// How the rank fails.
    public let kind: Kind
    /// Which rank.
    public let rank: Int

    /// Reads `kill@2`; `nil` for what is none.
    public init?(_ text: String) {
        let words = text.split(separator: "@", omittingEmptySubsequences: false)
        guard words.count == 2, let kind = Kind(rawValue: String(words[0])), let rank = Int(words[1]), rank >= 0 else {
            return nil
        }
        self.kind = kind
        self.rank = rank
    }

    /// The failure of ``Kind/fail``.
    public struct Failure: Error, CustomStringConvertible {
        /// What it says of itself.
        public let description = "a failure on purpose"
    }

    /// The part before joining: a rank that is to be absent waits here until it is ended.
    public func beforeJoining() {
        if kind == .absent, LaunchEnvironment.current.rank == rank { while true { sleep(1) } }
    }

    /// Makes calls until the rank fails, and one more on all others, which cannot succeed.
    ///
    /// - Parameter place: Where the calls' tensor is; `nil` for host memory.
    /// - Throws: ``CollectiveError`` on the other ranks, ``Failure`` on one that throws.
    public func run(on world: any Collective, at place: TensorPlace? = nil) throws {
        let memory = CachingAllocator()
        let tensor = try (place ?? .host).put(memory.tensor([Float](repeating: 1, count: 1024), Shape(1024)))
        let part = try world.split(name: "data", color: 0)
        for layer in 0..<3 { try part?.allReduce(tensor, into: tensor, layer: layer) }
        if world.rank == rank {
            switch kind {
            case .kill: raise(SIGKILL)
            case .stop: raise(SIGSTOP)
            case .mismatch: try part?.barrier(layer: 7)
            case .skip, .absent: sleep(3600)
            case .fail: throw Failure()
            }
        }
        try part?.allReduce(tensor, into: tensor, layer: 7)
    }
}
