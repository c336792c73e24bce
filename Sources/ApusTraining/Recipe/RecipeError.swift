extension Recipe {
    /// Why a recipe was refused: every problem found, in the order of reading.
    public struct Error: Swift.Error, Sendable, Equatable {
        /// Where a problem lies.
        public enum Place: Sendable, Equatable {
            /// The file as a whole.
            case file
            /// A line, counted from 1.
            case line(Int)
            /// An override, as it was given.
            case override(String)
        }

        /// One problem.
        public struct Finding: Sendable, Equatable {
            /// Where it lies.
            public let place: Place
            /// The dotted key; empty when the file itself is at fault.
            public let key: String
            /// What is wrong.
            public let reason: String
            /// What would work.
            public let remedy: String
        }

        /// The file, as it was named.
        public let file: String
        /// The problems: at least one, at most ``limit``.
        public let findings: [Finding]
        /// Problems beyond those.
        public let omitted: Int

        /// Problems told at once.
        public static let limit = 10
    }
}

extension Recipe.Error: CustomStringConvertible {
    /// One line for each problem: `recipe.yaml:12: training.steps is "many": an integer is needed, for example 500`.
    public var description: String {
        var lines = findings.map(line)
        if omitted > 0 { lines.append("\(display(file, limit: 200)): and \(omitted) more") }
        return lines.joined(separator: "\n")
    }

    private func line(_ finding: Finding) -> String {
        let subject = finding.key.isEmpty ? "" : display(finding.key, limit: 120) + " "
        let statement = "\(subject)\(finding.reason): \(finding.remedy)"
        return switch finding.place {
        case .file: "\(display(file, limit: 200)): \(statement)"
        case .line(let number): "\(display(file, limit: 200)):\(number): \(statement)"
        case .override(let text): "--set \(display(text, limit: 120)): \(statement)"
        }
    }
}

/// Collects problems while a recipe is read, so that one reading tells them all.
final class FindingLog {
    private let file: String
    private var findings: [Recipe.Error.Finding] = []
    private var omitted = 0
    private var flawed: Set<String> = []

    init(file: String) { self.file = file }

    var isEmpty: Bool { findings.isEmpty }

    var error: Recipe.Error { Recipe.Error(file: file, findings: findings, omitted: omitted) }

    func add(_ place: Recipe.Error.Place, _ key: String, _ reason: String, _ remedy: String) {
        flawed.insert(key)
        if findings.count < Recipe.Error.limit {
            findings.append(Recipe.Error.Finding(place: place, key: key, reason: reason, remedy: remedy))
        } else {
            omitted += 1
        }
    }

    /// Whether nothing is wrong with any of these keys themselves: only then does a comparison between them say
    /// something new.
    func areSound(_ keys: [String]) -> Bool { flawed.isDisjoint(with: keys) }
}

/// Text fit for one line of a terminal: control characters escaped, the rest cut at `limit` characters.
func display(_ text: String, limit: Int = 60) -> String {
    var shown = ""
    for scalar in text.unicodeScalars.prefix(limit) {
        shown += scalar.properties.generalCategory == .control ? scalar.escaped(asASCII: true) : String(scalar)
    }
    return text.unicodeScalars.dropFirst(limit).isEmpty ? shown : shown + "..."
}
