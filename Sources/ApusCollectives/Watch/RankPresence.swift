/// A name that each rank claims on its machine before anything else, by which others see that it has begun.
///
/// MPI's own start waits for every rank, and cannot say which has not come.
final class RankPresence: Sendable {
    private let job: String
    private let size: Int
    private let isOneMachine: Bool

    /// Claims the name of this process's rank, for as long as it lives.
    init(_ environment: LaunchEnvironment) {
        job = environment.job
        size = environment.size ?? 0
        isOneMachine = environment.isOneMachine
        if let rank = environment.rank { _ = WatchSocket.claim(RankPresence.name(job, rank)) }
    }

    /// Ranks that have not begun; none where they may be on machines that cannot be seen from here.
    var absent: [Int] {
        isOneMachine ? (0..<size).filter { !WatchSocket.isClaimed(RankPresence.name(job, $0)) } : []
    }

    private static func name(_ job: String, _ rank: Int) -> String { "apus-\(job)-\(rank)" }
}
