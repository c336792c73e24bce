import ApusTensor
import Glibc

// Which of the machine's cores a rank computes on.
extension World {
    /// This process's place among the ranks on this machine, from 0, as the launcher tells: which GPU is its own.
    public static var rankOnThisMachine: Int {
        let environment = LaunchEnvironment.current
        return environment.launch == .ranks ? max(environment.rankOnMachine ?? 0, 0) : 0
    }

    /// The threads that a rank computes with unless another number is asked for: ``threadsPerRank(availableCores:machineCores:ranks:)``
    /// of this process. It is known before joining, as it must be before the first product.
    public static var threadsPerRank: Int {
        threadsPerRank(
            availableCores: ThreadPool.availableCores, machineCores: machineCores, ranks: ranksOnThisMachine)
    }

    /// How many threads each of the ranks on a machine computes with, so that together they use its cores once: more threads
    /// than cores slow products down several times over.
    ///
    /// A rank that the launcher has bound to cores of its own uses those. One that may use all cores, or as `--bind-to
    /// socket` does it a part that other ranks use too, takes its share.
    ///
    /// - Parameters:
    ///   - availableCores: Cores that this process may run on: those of its affinity mask.
    ///   - machineCores: Cores of the machine, or of the container, that the ranks share.
    ///   - ranks: Ranks on this machine.
    /// - Returns: One at least.
    public static func threadsPerRank(availableCores: Int, machineCores: Int, ranks: Int) -> Int {
        let share = max(machineCores, availableCores) / max(ranks, 1)
        return max(1, min(availableCores, ranks > 1 ? share : availableCores))
    }

    /// The cores that processes here can have at most: those of the first process, whose mask is the container's and which
    /// no launcher binds.
    static var machineCores: Int { coresOfFirstProcess ?? max(sysconf(Int32(_SC_NPROCESSORS_ONLN)), 1) }

    private static var coresOfFirstProcess: Int? {
        let file = open("/proc/1/status", O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return nil }
        defer { close(file) }
        var bytes = [UInt8](repeating: 0, count: 1 << 14)
        let count = read(file, &bytes, bytes.count)
        return count > 0 ? cores(inStatus: String(decoding: bytes[..<count], as: UTF8.self)) : nil
    }

    /// The cores in a process's affinity mask, as `/proc/ID/status` has it: `Cpus_allowed: ff,ffffffff`.
    static func cores(inStatus text: String) -> Int? {
        guard let line = text.split(separator: "\n").first(where: { $0.hasPrefix("Cpus_allowed:") }) else { return nil }
        let count = line.dropFirst("Cpus_allowed:".count).reduce(0) { $0 + ($1.hexDigitValue?.nonzeroBitCount ?? 0) }
        return count > 0 ? count : nil
    }
}
