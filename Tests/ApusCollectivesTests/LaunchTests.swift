import Testing

@testable import ApusCollectives

/// How a process finds out what it is part of, before and without MPI.
struct LaunchTests {
    @Test func `only a launcher of ranks makes a process a rank`() {
        let cases: [([String: String], LaunchEnvironment.Launch)] = [
            ([:], .single), (["OMPI_COMM_WORLD_SIZE": "4"], .ranks), (["OMPI_COMM_WORLD_SIZE": "1"], .single),
            (["OMPI_COMM_WORLD_SIZE": "1", "PMIX_RANK": "0"], .single), (["PMIX_RANK": "2"], .ranks),
            (["PMIX_RANK": "0", "SLURM_STEP_NUM_TASKS": "1"], .single),
            (["PMIX_RANK": "0", "SLURM_STEP_NUM_TASKS": "8"], .ranks), (["SLURM_PROCID": "0"], .single),
            (["PMI_SIZE": "1"], .single),
        ]
        for (variables, launch) in cases { #expect(LaunchEnvironment(variables).launch == launch, "\(variables)") }
        for variables in [["SLURM_STEP_NUM_TASKS": "2"], ["PMI_SIZE": "2"]] {
            guard case .unusable(let words) = LaunchEnvironment(variables).launch else {
                Issue.record("\(variables) are usable")
                continue
            }
            #expect("\(MPIProblem.otherLauncher(words))".contains("mpirun"))
        }
    }

    @Test func `the ranks that share a machine are counted`() {
        #expect(LaunchEnvironment(["OMPI_COMM_WORLD_LOCAL_SIZE": "3"]).sizeOfMachine == 3)
        #expect(LaunchEnvironment(["SLURM_STEP_TASKS_PER_NODE": "2(x3),4,1"]).sizeOfMachine == 4)
        #expect(LaunchEnvironment([:]).sizeOfMachine == nil)
        #expect(World.ranksOnThisMachine >= 1)
    }

    @Test func `a process that no launcher started is a world of one`() throws {
        guard LaunchEnvironment.current.launch == .single else { return }
        #expect(try World.current() is SingleRank)
        #expect(try World.run { $0.size } == 1)
        struct Failure: Error {}
        #expect(throws: Failure.self) { try World.run { _ in throw Failure() } }
    }

    @Test func `a missing library is one line that says what to install`() throws {
        let error = #expect(throws: MPIProblem.self) { try MPILibrary(names: "libnothing.so.40") }
        guard case .missing(let reason)? = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(reason.contains("libnothing.so.40"))
        let words = "\(MPIProblem.missing(reason: reason))"
        #expect(words.contains("apt-get install openmpi-bin") && !words.contains("\n"))
        #expect(throws: MPIProblem.incomplete(file: "libm.so.6", function: "MPI_Get_library_version")) {
            try MPILibrary(names: "libm.so.6")
        }
    }

    @Test func `other MPIs are not taken for Open MPI`() {
        #expect(MPILibrary.isSupported("Open MPI v4.1.4") && MPILibrary.isSupported("Open MPI v5.0.6"))
        for version in ["Open MPI v3.1.6", "Open MPI v50.1", "MPICH Version: 4.2", ""] {
            #expect(!MPILibrary.isSupported(version))
        }
    }

    @Test func `the watchdog's address survives its journey`() throws {
        let address = WatchAddress(
            token: .max, port: 65535, host: "node-7.cluster", addresses: ["10.0.0.7", "192.168.1.7"])
        #expect(address.message.count == WatchAddress.messageSize)
        #expect(WatchAddress(message: address.message) == address)
        let many = WatchAddress(
            token: 1, port: 1, host: "n", addresses: (0..<200).map { "10.100.100.\($0)" })
        let arrived = try #require(WatchAddress(message: many.message))
        #expect(arrived.addresses.count > 50 && many.addresses.starts(with: arrived.addresses))
        #expect(WatchAddress(message: Array(repeating: 0, count: WatchAddress.messageSize)) == nil)
    }

    @Test func `a rank that has begun can be seen, and one that has not is named`() {
        let job = "test-\(UInt64.random(in: 0 ... .max))"
        let variables = { (rank: Int) in
            [
                "OMPI_COMM_WORLD_RANK": "\(rank)", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
                "PMIX_NAMESPACE": job,
            ]
        }
        let first = RankPresence(LaunchEnvironment(variables(0)))
        #expect(first.absent == [1, 2, 3])
        _ = RankPresence(LaunchEnvironment(variables(2)))
        #expect(first.absent == [1, 3])
        #expect("\(MPIProblem.incompleteStart(after: .seconds(3), absent: first.absent))".contains("rank 1, rank 3"))
    }

    @Test func `tags tell calls under way apart, and ranks of other histories too`() {
        let tag = MessageTag(bits: 22)
        var numbering = CallNumbering()
        var other = CallNumbering()
        let barrier = OperationSignature(kind: .barrier)
        let places = (0..<MessageTag.window).map { _ in numbering.next(nil, barrier) }
        let tags = places.map { tag.tag(of: $0, isPair: false) }
        #expect(Set(tags).count == tags.count)
        #expect(tags.allSatisfy { $0 >= 0 && $0 < 1 << 22 })
        #expect(places.map(\.sequence) == Array(0..<MessageTag.window))
        // Equal calls have equal tags; from the first other call on all differ.
        var differing = 0
        for (sequence, place) in places.enumerated() {
            let own = other.next(nil, sequence == 10 ? OperationSignature(kind: .split, label: "x") : barrier)
            if sequence < 10 { #expect(tag.tag(of: own, isPair: false) == tags[sequence]) }
            if tag.tag(of: own, isPair: false) != tags[sequence] { differing += 1 }
            #expect((own.history == place.history) == (sequence < 10))
        }
        #expect(differing >= MessageTag.window - 12)
        #expect(tag.tag(of: places[3], isPair: true) != tags[3])
        // A send and a receive are two sides of one message.
        var send = OperationSignature(kind: .send)
        var receive = OperationSignature(kind: .receive)
        send.elements = 5
        receive.elements = 5
        let pair = Channel.Pair(source: 0, target: 1)
        #expect(numbering.next(pair, send).history == other.next(pair, receive).history)
    }

    @Test func `every check holds in a world of threads, and of one`() throws {
        let outcomes = try InProcess.run(ranks: 3, timeout: .seconds(30)) {
            try CollectiveCheck.run(on: $0, sizes: [1, 3000], seconds: 0)
        }
        #expect(outcomes[0].count > 20)
        for outcome in outcomes.joined() { #expect(outcome.passes, "\(outcome)") }
        #expect(outcomes.allSatisfy { $0.map(\.name) == outcomes[0].map(\.name) })
        let alone = try CollectiveCheck.run(on: SingleRank(), sizes: [64], seconds: 0)
        #expect(alone.allSatisfy { $0.passes })
    }

    @Test func `rehearsals are read as they are written`() {
        #expect(Rehearsal("kill@2").map { [$0.kind.rawValue, "\($0.rank)"] } == ["kill", "2"])
        for text in ["kill", "kill@", "kill@-1", "kill@x", "burn@1", "kill@1@2", ""] { #expect(Rehearsal(text) == nil) }
    }
}
