public import ApusCollectives
import ApusTensor
import Glibc

extension CUDAWorld {
    /// What a rank has to compute with.
    public struct RankDevice: Sendable {
        /// Which GPU it is, as a number that differs for all others of all machines; `nil` where there is none to be used.
        let identity: Int?
        /// Why there is none.
        let problem: LibraryProblem?
        /// Whether a driver is there: without one, nobody expects a GPU.
        let hasDriver: Bool

        init(identity: Int?, problem: LibraryProblem?, hasDriver: Bool) {
            self.identity = identity
            self.problem = problem
            self.hasDriver = hasDriver
        }

        /// The GPU of `found`, or why there is none. NCCL is needed too.
        public init(_ found: Result<CUDABackend, LibraryProblem>) {
            let usable = found.flatMap { backend in NCCLLibrary.shared.map { _ in backend.device } }
            switch usable {
            case .success(let device): self.init(identity: device.place ^ machine, problem: nil, hasDriver: true)
            case .failure(let problem):
                let hasDriver = (try? CUDADriver.shared.get()) != nil
                self.init(identity: nil, problem: problem, hasDriver: hasDriver)
            }
        }
    }

    /// What ranks that were not told where to compute come to together.
    public enum Choice: Sendable, Equatable {
        /// Each on its GPU.
        case gpus
        /// All on processors; why, unless no machine has a driver, and nobody expects a GPU.
        case processors(reason: String?)
    }

    /// Where the ranks of `host` compute: on GPUs if every rank has one of its own and NCCL between them, else all on
    /// processors. Every rank calls this with what it has, and all come to the same.
    ///
    /// - Throws: ``CollectiveError``.
    public static func choice(_ own: RankDevice, over host: any Collective) throws -> Choice {
        let all = try host.collected([own.identity == nil ? 0 : 1, own.identity ?? 0, own.hasDriver ? 1 : 0])
        let problem = try host.first(own.problem.map { "rank \(host.rank): \($0)" })
        guard all.contains(where: { $0[2] > 0 }) else { return .processors(reason: nil) }
        if let problem { return .processors(reason: problem) }
        var owners: [Int: Int] = [:]
        for (rank, found) in all.enumerated() {
            if let other = owners.updateValue(rank, forKey: found[1]) {
                return .processors(
                    reason: "ranks \(other) and \(rank) have one GPU between them, and NCCL needs one for each")
            }
        }
        return .gpus
    }

    /// A number that all processes of this machine have, in whatever container, until it is started anew.
    private static let machine: Int = {
        guard let file = fopen("/proc/sys/kernel/random/boot_id", "re") else { return 0 }
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 64)
        let count = fread(&bytes, 1, bytes.count, file)
        let digest = bytes[..<count].reduce(UInt64(0xcbf2_9ce4_8422_2325)) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
        return Int(truncatingIfNeeded: digest)
    }()
}
