import ApusOptim
import Testing

@Suite("Learning rate")
struct LearningRateScheduleTests {
    private func expect(_ schedule: LearningRateSchedule, _ values: [(step: Int, rate: Double)]) {
        for (step, rate) in values {
            let found = schedule.rate(step: step)
            #expect(abs(found - rate) <= 1e-12, "step \(step): \(found), not \(rate)")
        }
    }

    @Test("warm-up rises from base / w at step 1 to base at step w")
    func warmup() {
        let schedule = LearningRateSchedule(base: 0.8, warmupSteps: 4, steps: 10)
        expect(schedule, [(1, 0.2), (2, 0.4), (3, 0.6), (4, 0.8), (5, 0.8), (10, 0.8), (1000, 0.8)])
        expect(LearningRateSchedule(base: 0.8, steps: 10), [(1, 0.8), (10, 0.8)])
    }

    @Test("cosine: half way is the mean of both ends")
    func cosine() {
        let schedule = LearningRateSchedule(base: 1, kind: .cosine, warmupSteps: 2, steps: 10, finalFraction: 0.1)
        // cos(pi / 4) = 0.70710678...: a quarter of the way, then a half, then three quarters.
        expect(
            schedule,
            [
                (1, 0.5), (2, 1), (4, 0.1 + 0.9 * 0.853_553_390_593_273_8), (6, 0.55),
                (8, 0.1 + 0.9 * 0.146_446_609_406_726_2), (10, 0.1), (11, 0.1),
            ])
    }

    @Test("linear")
    func linear() {
        let schedule = LearningRateSchedule(base: 2, kind: .linear, warmupSteps: 5, steps: 15, finalFraction: 0.5)
        expect(schedule, [(5, 2), (6, 1.9), (10, 1.5), (14, 1.1), (15, 1), (99, 1)])
    }

    @Test("constant, then a straight line over the last steps")
    func constantThenDecay() {
        let schedule = LearningRateSchedule(
            base: 1, kind: .constantThenDecay, warmupSteps: 2, steps: 20, decaySteps: 10)
        expect(schedule, [(1, 0.5), (2, 1), (10, 1), (11, 0.9), (15, 0.5), (20, 0), (30, 0)])
        // No step of decay: constant to the end.
        expect(LearningRateSchedule(base: 1, kind: .constantThenDecay, steps: 20), [(1, 1), (20, 1)])
    }

    @Test("steps and warm-up of any size give a finite rate", arguments: LearningRateSchedule.Kind.allCases)
    func edges(_ kind: LearningRateSchedule.Kind) {
        for warmup in [0, 1, 5] {
            for steps in [0, 1, 5] {
                let schedule = LearningRateSchedule(
                    base: 1, kind: kind, warmupSteps: warmup, steps: steps, finalFraction: 0.1, decaySteps: 5)
                for step in -1...7 {
                    #expect((0...1).contains(schedule.rate(step: step)))
                }
            }
        }
        let one = LearningRateSchedule(base: 1, kind: kind, warmupSteps: 5, steps: 5, finalFraction: 0.1)
        #expect(one.rate(step: 5) == 1)
    }
}
