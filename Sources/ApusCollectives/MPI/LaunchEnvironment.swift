import Glibc

/// How this process was started, as the launchers tell it in environment variables.
///
/// MPI is initialised only in a process that a launcher of ranks started: elsewhere it would make a world of one that
/// nobody asked for.
struct LaunchEnvironment {
    private let variables: [String: String]

    init(_ variables: [String: String]) { self.variables = variables }

    /// That of this process.
    static var current: LaunchEnvironment {
        let names = [
            "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
            "PMIX_RANK", "PMIX_NAMESPACE", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE", "SLURM_NTASKS_PER_NODE",
            "SLURM_PROCID", "SLURM_LOCALID", "PMI_SIZE", "PMI_LOCAL_SIZE", "PMI_LOCAL_RANK", "MPI_LOCALNRANKS",
            "MPI_LOCALRANKID",
        ]
        let pairs = names.compactMap { name in getenv(name).map { (name, String(cString: $0)) } }
        return LaunchEnvironment(Dictionary(uniqueKeysWithValues: pairs))
    }

    /// What the process is part of.
    enum Launch: Equatable {
        /// Nothing: it is the only rank.
        case single
        /// Ranks that Open MPI can connect.
        case ranks
        /// Ranks that it cannot; why.
        case unusable(String)
    }

    var launch: Launch {
        if let size = number("OMPI_COMM_WORLD_SIZE") { return size > 1 ? .ranks : .single }
        let tasks = number("SLURM_STEP_NUM_TASKS")
        if variables["PMIX_RANK"] != nil { return tasks == 1 ? .single : .ranks }
        if let tasks, tasks > 1 {
            return .unusable("srun started \(tasks) tasks without PMIx, by which Open MPI connects them")
        }
        if let size = number("PMI_SIZE"), size > 1 {
            return .unusable("these \(size) ranks were started by another MPI's launcher")
        }
        return .single
    }

    /// This process's rank, where the launcher says so before MPI is initialised.
    var rank: Int? { number("OMPI_COMM_WORLD_RANK") ?? number("PMIX_RANK") ?? number("SLURM_PROCID") }

    /// Number of ranks, where the launcher says so.
    var size: Int? { number("OMPI_COMM_WORLD_SIZE") ?? number("SLURM_STEP_NUM_TASKS") }

    /// Number of ranks on this machine, where the launcher says so.
    var sizeOfMachine: Int? {
        if let size = number("OMPI_COMM_WORLD_LOCAL_SIZE") { return size }
        // As in `4(x2),3`: of machines with different numbers the largest is the one to be safe with.
        let tasks = variables["SLURM_STEP_TASKS_PER_NODE"]?.split(separator: ",")
        return tasks?.compactMap { Int($0.prefix { $0.isNumber }) }.max() ?? number("SLURM_NTASKS_PER_NODE")
            ?? number("PMI_LOCAL_SIZE") ?? number("MPI_LOCALNRANKS")
    }

    /// This process's place among the ranks on this machine, where the launcher says so.
    var rankOnMachine: Int? {
        number("OMPI_COMM_WORLD_LOCAL_RANK") ?? number("SLURM_LOCALID") ?? number("PMI_LOCAL_RANK")
            ?? number("MPI_LOCALRANKID")
    }

    /// Whether all ranks are on this machine.
    var isOneMachine: Bool {
        number("OMPI_COMM_WORLD_LOCAL_SIZE").map { $0 == number("OMPI_COMM_WORLD_SIZE") } ?? false
    }

    /// What tells this job from others on the machine.
    var job: String { variables["PMIX_NAMESPACE"] ?? "job-\(getppid())" }

    private func number(_ name: String) -> Int? { variables[name].flatMap { Int($0) } }
}
