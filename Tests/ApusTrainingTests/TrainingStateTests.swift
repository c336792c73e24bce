import Testing

@testable import ApusTraining

@Suite struct TrainingStateTests {
    private let state = TrainingState(
        step: 12, dataChecksum: .max, settings: ["seed": "18446744073709551615", "data.held_out": "0.05"])

    @Test func `a state reads back`() throws {
        #expect(try TrainingState(text: state.text, path: "state.txt") == state)
    }

    @Test(arguments: [
        ("", "not the state"), ("apus_state 2\nstep 1\ndata_checksum 1\n", "not the state"),
        ("apus_state 1\ndata_checksum 1\n", "'step' is missing"),
        ("apus_state 1\nstep x\ndata_checksum 1\n", "'step' is missing"),
        ("apus_state 1\nstep 1\nstep 2\ndata_checksum 1\n", "comes twice"),
        ("apus_state 1\nstep 1\ndata_checksum -1\n", "'data_checksum' is missing"),
        ("apus_state 1\nstep\n", "'step' is not 'key value'"),
    ])
    func `damage is told`(_ text: String, _ reason: String) {
        let error = #expect(throws: TrainingCheckpointError.self) { try TrainingState(text: text, path: "f/state.txt") }
        #expect(error?.description.contains("'f/state.txt' is damaged") == true)
        #expect(error?.description.contains(reason) == true, "\(String(describing: error))")
    }

    @Test func `errors say what would work`() {
        let cases: [(TrainingCheckpointError, [String])] = [
            (.nothingToResume(folder: "runs/a"), ["runs/a", "--resume"]),
            (.runExists(folder: "runs/a"), ["runs/a", "--resume", "--out"]),
            (.different(folder: "runs/a", what: "seed", saved: "1", asked: "2"), ["seed 1", "not 2"]),
        ]
        for (error, parts) in cases {
            for part in parts { #expect(error.description.contains(part), "\(error)") }
        }
    }
}
