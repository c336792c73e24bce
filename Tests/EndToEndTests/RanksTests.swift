import ApusTestSupport
import Foundation
import Testing

@Suite(.serialized)
struct RanksTests {
    @Test(.enabled(if: Ranks.mpirun != nil, Ranks.need), arguments: [2, 3, 4])
    func `every operation is right over MPI`(ranks: Int) throws {
        let outcome = try Ranks.run(ranks, ["doctor", "--collectives", "--skip-speed", "--json"])
        #expect(outcome.end == .exit(0), "\(outcome.errors)")
        let report = try #require(
            try JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [String: Any],
            "one object, from one rank: \(outcome.output)")
        #expect(report["ranks"] as? Int == ranks)
        #expect((report["library"] as? String)?.hasPrefix("Open MPI v") == true)
        #expect(report["passes"] as? Bool == true)
        let checks = try #require(report["checks"] as? [[String: Any]])
        #expect(checks.count == 41)
        for check in checks { #expect(check["wrong"] as? Int == 0, "\(check)") }
        #expect(Set(checks.compactMap { $0["operation"] as? String }).count == 11)
    }

    @Test func `one rank needs no MPI`() throws {
        let outcome = try Ranks.run(
            ["LD_LIBRARY_PATH=/nowhere"], ["doctor", "--collectives", "--skip-speed", "--json"])
        #expect(outcome.end == .exit(0))
        #expect(outcome.output.contains(#""ranks": 1, "library": null"#))
        #expect(outcome.output.contains(#""passes": true}"#))
    }

    /// How a rank fails, and what the one message must say.
    static let failures: [(rehearsal: String, words: [String])] = [
        ("kill@1", ["lost: rank 1 ended without a word", "All ranks end"]),
        ("kill@0", ["lost: rank 0 ended without a word"]),
        ("stop@2", ["lost: rank 2 has given no sign of life", "waits in all-reduce", "call 3 on data.0, layer 7"]),
        ("stop@0", ["lost: rank 0 has given no sign of life", "call 3 on data.0, layer 7"]),
        (
            "mismatch@1",
            [
                "mismatch on data.0, call 3: rank 0 called all-reduce (sum) of 1024 f32 in layer 7, "
                    + "rank 1 called barrier in layer 7"
            ]
        ),
        (
            "skip@1",
            [
                "time-out:", "in all-reduce (sum) of 1024 f32, call 3 on data.0, layer 7",
                "missing: rank 1 (last seen in all-reduce (sum) of 1024 f32, call 2 on data.0, layer 2)",
            ]
        ),
        ("fail@1", ["error: rank 1 failed: a failure on purpose"]),
        ("absent@2", ["not all ranks came to the start within 5.0 seconds: missing rank 2"]),
    ]

    @Test(.enabled(if: Ranks.mpirun != nil, Ranks.need), arguments: failures)
    func `a rank's failure ends all ranks, and is said once`(rehearsal: String, words: [String]) throws {
        let outcome = try Ranks.run(3, ["doctor", "--collectives", "--rehearse", rehearsal, "--timeout", "5"])
        #expect(outcome.end != .exit(0))
        // The time-out, the time to judge, the grace, and a machine that has other things to do.
        #expect(outcome.seconds < 25)
        #expect(outcome.errors.count == 1, "\(outcome.errors)")
        for part in words { #expect(outcome.errors.joined().contains(part), "\(outcome.errors)") }
    }

    @Test func `a missing library is one line`() throws {
        let folder = try ScratchFolder()
        // A file of its name that is none, so that a library of the system is not found behind it.
        try folder.write("libmpi.so.40", text: "")
        let outcome = try Ranks.run(
            ["LD_LIBRARY_PATH=\(folder.path)", "OMPI_COMM_WORLD_SIZE=2", "OMPI_COMM_WORLD_RANK=0"],
            ["doctor", "--collectives"])
        #expect(outcome.end == .exit(1))
        #expect(outcome.errors.count == 1)
        #expect(outcome.errors.first?.contains("Open MPI was not found") == true, "\(outcome.errors)")
        #expect(outcome.errors.first?.contains("apt-get install openmpi-bin") == true)
    }

    @Test func `ranks of another launcher are refused with what would work`() throws {
        let outcome = try Ranks.run(["PMI_SIZE=2"], ["doctor", "--collectives"])
        #expect(outcome.end == .exit(1))
        #expect(outcome.errors.count == 1)
        #expect(outcome.errors.first?.contains("start the ranks with Open MPI's mpirun") == true, "\(outcome.errors)")
    }

    @Test(arguments: [
        (["--rehearse", "kill@1"], "--rehearse needs --collectives"),
        (["--collectives", "--rehearse", "burn@1"], "give one of kill, stop"),
        (["--collectives", "--rehearse", "kill@1"], "there is no rank 1 among 1"),
        (["--collectives", "--timeout", "0"], "give at least one second"),
    ])
    func `what makes no sense is refused`(arguments: [String], words: String) throws {
        let outcome = try Ranks.run([], ["doctor"] + arguments)
        #expect(outcome.end != .exit(0))
        #expect(outcome.errors.joined().contains(words), "\(outcome.errors)")
    }
}
