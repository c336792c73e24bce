import Glibc

/// The learning rate of each step: a linear warm-up, then one of four shapes.
///
/// Steps are counted from 1. Warm-up step `s` of `w` has the rate `base * s / w`, so the first step already moves and
/// step `w` has the whole base rate. What follows is a function of the progress after warm-up, which is 0 at step `w`
/// and 1 at the last step; later steps keep the last one's rate.
public struct LearningRateSchedule: Sendable, Equatable {
    /// The shape after warm-up.
    public enum Kind: String, Sendable, CaseIterable {
        /// The base rate to the end.
        case constant
        /// Half a cosine from the base rate to the final one (Loshchilov and Hutter 2017, section 3, without restarts).
        case cosine
        /// A straight line from the base rate to the final one.
        case linear
        /// The base rate, then a straight line to the final one over the last ``LearningRateSchedule/decaySteps``.
        case constantThenDecay = "constant-then-decay"
    }

    /// Rate at the end of warm-up.
    public var base: Double
    /// Shape after warm-up.
    public var kind: Kind
    /// Steps of linear warm-up; 0 for none.
    public var warmupSteps: Int
    /// Steps in all, warm-up included.
    public var steps: Int
    /// The last step's rate, as a fraction of ``base``; not read by ``Kind/constant``.
    public var finalFraction: Double
    /// Steps of the final line of ``Kind/constantThenDecay``; not read by the others.
    public var decaySteps: Int

    /// A schedule over `steps` steps.
    public init(
        base: Double, kind: Kind = .constant, warmupSteps: Int = 0, steps: Int, finalFraction: Double = 0,
        decaySteps: Int = 0
    ) {
        self.base = base
        self.kind = kind
        self.warmupSteps = warmupSteps
        self.steps = steps
        self.finalFraction = finalFraction
        self.decaySteps = decaySteps
    }

    /// The rate of step `step`, counted from 1; anything below 1 is taken as the first step.
    public func rate(step: Int) -> Double {
        let step = max(step, 1)
        if step < warmupSteps { return base * Double(step) / Double(warmupSteps) }
        switch kind {
        case .constant:
            return base
        case .cosine:
            return base * between((1 + cos(.pi * progress(step, from: warmupSteps))) / 2)
        case .linear:
            return base * between(1 - progress(step, from: warmupSteps))
        case .constantThenDecay:
            return base * between(1 - progress(step, from: max(warmupSteps, steps - decaySteps)))
        }
    }

    /// 0 up to step `start`, 1 from the last step on, and a straight line between.
    private func progress(_ step: Int, from start: Int) -> Double {
        if step >= steps { return start < steps ? 1 : 0 }
        return step <= start ? 0 : Double(step - start) / Double(steps - start)
    }

    /// ``finalFraction`` at 0, 1 at 1.
    private func between(_ share: Double) -> Double { finalFraction + (1 - finalFraction) * share }
}
