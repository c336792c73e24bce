import ApusCollectives
import ApusTensor
import Glibc

/// What a rank that does not print tells of its steps: `logs/rank-3.log` in the run's folder.
final class RankLog {
    private let path: String
    private let file: UnsafeMutablePointer<FILE>
    private let every: Int

    /// Opens the log of `rank` in the run `folder`, for every `every`-th step; for none when it is 0.
    ///
    /// - Throws: ``FileError``, ``MetricsFileError``.
    init(folder: String, rank: Int, every: Int) throws {
        let logs = "\(folder)/logs"
        // Another rank may be making it.
        if mkdir(logs, 0o777) != 0, errno != EEXIST { throw MetricsFileError(path: logs, code: errno) }
        path = "\(logs)/rank-\(rank).log"
        self.every = every
        guard let file = fopen(path, "a") else { throw MetricsFileError(path: path, code: errno) }
        self.file = file
    }

    deinit { fclose(file) }

    /// Tells of a step that took `seconds`.
    ///
    /// - Throws: ``MetricsFileError``.
    func append(step: Int, seconds: Double, _ collectives: OperationTotals?, _ memory: MemoryStatistics) throws {
        guard every > 0, step % every == 0 else { return }
        // Not known on GPUs.
        let waited = collectives?.exposedSeconds.map { ", \(decimal($0, 3)) of them waiting for other ranks" } ?? ""
        let line = "step \(step)  \(decimal(seconds, 3)) s\(waited)  \(formatBytes(memory.totalPeak))\n"
        guard fputs(line, file) >= 0, fflush(file) == 0 else { throw MetricsFileError(path: path, code: errno) }
    }
}
