import ApusTensor
import Testing

@testable import ApusCollectives

/// Which cores a rank computes on.
@Suite struct RankCoresTests {
    @Test func `threads are cores over ranks, unless the launcher has bound the rank`() {
        let cases: [(available: Int, machine: Int, ranks: Int, threads: Int, why: String)] = [
            (8, 8, 1, 8, "alone"), (6, 8, 1, 6, "alone, under taskset"), (8, 8, 2, 4, "not bound"),
            (8, 8, 3, 2, "not bound, with a rest"), (2, 2, 4, 1, "more ranks than cores"),
            (4, 16, 4, 4, "bound, by equal parts"),
            (1, 16, 4, 1, "bound to one core each"), (16, 32, 4, 8, "bound to a socket that two share"),
            (4, 4, 4, 1, "a container of four cores"), (8, 4, 2, 4, "the first process is bound closer"),
            (0, 0, 0, 1, "unknown"),
        ]
        for item in cases {
            let threads = World.threadsPerRank(
                availableCores: item.available, machineCores: item.machine, ranks: item.ranks)
            #expect(threads == item.threads, "\(item.why)")
        }
    }

    @Test func `this process has at least one core, and no more than the machine`() {
        #expect(World.machineCores >= 1)
        #expect((1...max(World.machineCores, ThreadPool.availableCores)).contains(World.threadsPerRank))
        #expect(World.rankOnThisMachine >= 0)
    }

    @Test func `an affinity mask is counted`() {
        #expect(World.cores(inStatus: "Name:\tinit\nCpus_allowed:\tff,0000000f\nCpus_allowed_list:\t0-3,32-39\n") == 12)
        #expect(World.cores(inStatus: "Cpus_allowed:\t3\n") == 2)
        #expect(World.cores(inStatus: "Cpus_allowed:\t0\n") == nil)
        #expect(World.cores(inStatus: "Name:\tinit\n") == nil)
    }

    @Test func `the place on the machine is told by each launcher`() {
        let launchers: [([String: String], rank: Int?, size: Int?)] = [
            (["OMPI_COMM_WORLD_LOCAL_RANK": "3", "OMPI_COMM_WORLD_LOCAL_SIZE": "4", "SLURM_LOCALID": "0"], 3, 4),
            (["SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "2(x3)", "SLURM_NTASKS_PER_NODE": "8"], 1, 2),
            (["SLURM_LOCALID": "1", "SLURM_NTASKS_PER_NODE": "8"], 1, 8),
            (["PMI_LOCAL_RANK": "2", "PMI_LOCAL_SIZE": "3"], 2, 3),
            (["MPI_LOCALRANKID": "5", "MPI_LOCALNRANKS": "6"], 5, 6),
            ([:], nil, nil), (["SLURM_LOCALID": "x"], nil, nil),
        ]
        for (variables, rank, size) in launchers {
            let environment = LaunchEnvironment(variables)
            #expect(environment.rankOnMachine == rank && environment.sizeOfMachine == size, "\(variables)")
        }
    }
}
