/// Where a run stands: what resuming needs besides weights and optimizer state.
public struct TrainingState: Sendable, Equatable {
    /// Steps taken.
    public var step: Int
    /// Sequences read from the data stream.
    public var sequences: Int
    /// The run's seed: with the step it determines every draw.
    public var seed: UInt64
    /// Checksum of the text.
    public var dataChecksum: UInt64
    /// Precision mode by name.
    public var precision: String

    /// A state.
    public init(step: Int, sequences: Int, seed: UInt64, dataChecksum: UInt64, precision: String) {
        self.step = step
        self.sequences = sequences
        self.seed = seed
        self.dataChecksum = dataChecksum
        self.precision = precision
    }

    /// `key value` lines; 64-bit numbers do not survive every JSON reader.
    var text: String {
        """
        apus_state 1
        step \(step)
        sequences \(sequences)
        seed \(seed)
        data_checksum \(dataChecksum)
        precision \(precision)

        """
    }

    /// Reads what ``text`` wrote.
    ///
    /// - Throws: ``TrainingCheckpointError/malformedState(path:reason:)``
    init(text: String, path: String) throws(TrainingCheckpointError) {
        var fields: [Substring: Substring] = [:]
        for line in text.split(separator: "\n") {
            let parts = line.split(separator: " ", maxSplits: 1)
            guard parts.count == 2, fields.updateValue(parts[1], forKey: parts[0]) == nil else {
                throw .malformedState(path: path, reason: "line '\(line)' is not 'key value', or comes twice")
            }
        }
        func field<Value>(_ key: Substring, _ read: (Substring) -> Value?) throws(TrainingCheckpointError) -> Value {
            guard let text = fields[key], let value = read(text) else {
                throw .malformedState(path: path, reason: "'\(key)' is missing or is no number")
            }
            return value
        }
        guard fields["apus_state"] == "1" else {
            throw .malformedState(path: path, reason: "it is not the state of a run of this version")
        }
        step = try field("step") { Int($0) }
        sequences = try field("sequences") { Int($0) }
        seed = try field("seed") { UInt64($0) }
        dataChecksum = try field("data_checksum") { UInt64($0) }
        precision = try field("precision") { String($0) }
    }
}

/// What can be wrong with a checkpoint of a run, beyond its files.
public enum TrainingCheckpointError: Error, Sendable, Equatable {
    /// The state file is not one.
    case malformedState(path: String, reason: String)
    /// There is no checkpoint to resume from.
    case nothingToResume(folder: String)
    /// The folder holds a run already.
    case runExists(folder: String)
    /// The checkpoint is of a run with another setting that decides its numbers.
    case different(folder: String, what: String, saved: String, asked: String)
}

extension TrainingCheckpointError: CustomStringConvertible {
    /// What was wrong, where, and what would work.
    public var description: String {
        switch self {
        case .malformedState(let path, let reason):
            "'\(path)' is damaged: \(reason). Delete its folder to resume from the checkpoint before"
        case .nothingToResume(let folder):
            "'\(folder)' holds no checkpoint to resume from; leave --resume out to begin"
        case .runExists(let folder):
            "'\(folder)' holds a run already; continue it with --resume, or choose another --out"
        case .different(let folder, let what, let saved, let asked):
            "'\(folder)' was trained with \(what) \(saved), not \(asked); resume with the recipe it began with"
        }
    }
}
