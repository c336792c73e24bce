import Testing

@testable import ApusCollectives

/// Ranks that are slow for many steps.
@Suite struct StepStragglersTests {
    /// A step of 100 ms in which each rank waits for so many milliseconds.
    private func step(_ waits: [Double]) -> [StepTime] { waits.map { StepTime(seconds: 0.1, waited: $0 / 1000) } }

    /// The lines said over steps from 1 on, with the step at which.
    private func lines(_ watch: inout StepStragglers, _ steps: [[Double]]) -> [String] {
        steps.enumerated().flatMap { index, waits in
            watch.note(step: index + 1, step(waits)).map { "\(index + 1): \($0)" }
        }
    }

    @Test func `a slow rank is said once, after its steps in a row, and once when it has recovered`() {
        var watch = StepStragglers(ranks: 4, threshold: 0.1, patience: 3)
        let even = [5.0, 6, 4, 5]
        let slow = [26.0, 24, 26, 5]
        let said = lines(
            &watch, [even, slow, slow, even] + Array(repeating: slow, count: 5) + [even, slow, even, even, even, even])
        #expect(
            said == [
                "7: rank 3 is slow since step 5: the others wait 20.0 ms longer in each step (20 % of it)",
                "14: rank 3 is no longer slow since step 12; it was from step 5 on",
            ])
        #expect(watch.slow.isEmpty)
    }

    @Test func `who waits most is not slow, and little does not count`() {
        var watch = StepStragglers(ranks: 4, threshold: 0.1, patience: 2)
        #expect(lines(&watch, Array(repeating: [60, 5, 5, 6], count: 6)).isEmpty)
        #expect(lines(&watch, Array(repeating: [14, 14, 14, 5], count: 6)).isEmpty)
        #expect(StepStragglers(ranks: 1).slow.isEmpty)
    }

    @Test func `of two ranks the one that waits less is slow`() {
        var watch = StepStragglers(ranks: 2, threshold: 0.1, patience: 2)
        #expect(
            lines(&watch, Array(repeating: [1, 31], count: 4)) == [
                "2: rank 0 is slow since step 1: the others wait 30.0 ms longer in each step (30 % of it)"
            ])
        #expect(watch.slow.map(\.rank) == [0] && watch.slow.map(\.since) == [1])
    }

    @Test func `two slow ranks of five are both said`() {
        var watch = StepStragglers(ranks: 5, patience: 2)
        let said = lines(&watch, Array(repeating: [40, 2, 41, 3, 40], count: 3))
        #expect(said.count == 2 && said[0].hasPrefix("2: rank 1") && said[1].hasPrefix("2: rank 3"))
    }

    @Test func `one rank is never slow, nor in steps of no time`() {
        var watch = StepStragglers(ranks: 1, patience: 1)
        #expect(watch.note(step: 1, step([50])).isEmpty)
        var still = StepStragglers(ranks: 2, patience: 1)
        #expect(still.note(step: 1, [StepTime(seconds: 0, waited: 0), StepTime(seconds: 0, waited: 0)]).isEmpty)
    }

    @Test func `times of a step come to every rank`() throws {
        let times = try InProcess.run(ranks: 3) {
            try $0.gatherTimes(StepTime(seconds: 0.5, waited: Double($0.rank) / 4))
        }
        for gathered in times {
            #expect(gathered == (0..<3).map { StepTime(seconds: 0.5, waited: Double($0) / 4) })
        }
    }
}
