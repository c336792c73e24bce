import ApusTraining

/// What `apus verify device` says of the steps that were compared.
struct DeviceReport {
    let device: DeviceChoice
    /// Largest difference that is allowed.
    let tolerance: Double
    /// The steps so far.
    var steps: [DeviceComparison.Step] = []

    /// Whether all steps agree.
    var agrees: Bool { firstApart == nil }
    /// Where the device stopped being finite.
    var failure: NonFiniteError? { steps.last?.failure }

    private var firstApart: DeviceComparison.Step? { steps.first { $0.difference > tolerance } }

    /// Names of the columns.
    var header: String {
        Self.row(["step", "loss cpu", "loss \(device.rawValue)", "norm cpu", "norm \(device.rawValue)", "off"])
    }

    /// The last step as a line; `nil` where there is nothing to see in one of `count` steps.
    func line(last count: Int) -> String? {
        guard let step = steps.last else { return nil }
        guard step.step == 1 || step.step % 10 == 0 || step.step == count || step.step == firstApart?.step else {
            return nil
        }
        let numbers = [step.loss, step.gradientNorm].flatMap { [$0.reference, $0.other] }
        return Self.row(["\(step.step)"] + numbers.map { fixed(Double($0), 6) } + [scientific(step.difference)])
    }

    /// Two lines: the largest differences, and whether they are allowed.
    var verdict: String {
        let worst = Quantity.allCases.map { quantity in
            let step = worstStep(quantity)
            return "\(quantity.words) at most \(scientific(quantity.of(step).difference)) off (step \(step.step))"
        }
        return "\n\(worst.joined(separator: ", ")); \(scientific(tolerance)) is allowed\n\(outcome)"
    }

    private var outcome: String {
        if let failure {
            return "DIFFERENT: step \(failure.step) on \(device.rawValue) is not finite, first seen in \(failure.place)"
        }
        if let firstApart { return "DIFFERENT: the processor and \(device.rawValue) part in step \(firstApart.step)" }
        return "the same: \(plural(steps.count, "step")) on the processor and on \(device.rawValue)"
    }

    /// One JSON object with all steps.
    var object: JSONText {
        .object(
            [
                ("device", .string(device.rawValue)), ("tolerance", .number(tolerance)), ("agrees", .bool(agrees)),
                ("first_different_step", .optional(firstApart) { .integer($0.step) }),
                ("not_finite_in", .optional(failure) { .string($0.place) }),
            ] + Quantity.allCases.map { ($0.rawValue, worst($0)) } + [("steps", .array(steps.map(Self.object)))])
    }

    private func worst(_ quantity: Quantity) -> JSONText {
        let step = worstStep(quantity)
        return .object([
            ("largest_difference", .number(quantity.of(step).difference)), ("step", .integer(step.step)),
        ])
    }

    private static func object(_ step: DeviceComparison.Step) -> JSONText {
        .object([
            ("step", .integer(step.step)), ("loss_reference", .number(Double(step.loss.reference))),
            ("loss", .number(Double(step.loss.other))),
            ("gradient_norm_reference", .number(Double(step.gradientNorm.reference))),
            ("gradient_norm", .number(Double(step.gradientNorm.other))), ("difference", .number(step.difference)),
        ])
    }

    private func worstStep(_ quantity: Quantity) -> DeviceComparison.Step {
        // The first of equals.
        let worst = steps.reduce(nil) { (worst: DeviceComparison.Step?, step) in
            guard let worst, quantity.of(step).difference <= quantity.of(worst).difference else { return step }
            return worst
        }
        guard let worst else { preconditionFailure("at least one step was compared") }
        return worst
    }

    private static func row(_ cells: [String]) -> String {
        cells.map { String(repeating: " ", count: max(1, 12 - $0.count)) + $0 }.joined()
    }

    /// What is compared in each step.
    private enum Quantity: String, CaseIterable {
        case loss
        case gradientNorm = "gradient_norm"

        var words: String { self == .loss ? "loss" : "gradient norm" }

        func of(_ step: DeviceComparison.Step) -> DeviceComparison.Pair {
            self == .loss ? step.loss : step.gradientNorm
        }
    }
}
