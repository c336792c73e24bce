import ApusNN

/// Where a run stands: what resuming needs besides weights and optimizer state.
public struct TrainingState: Sendable, Equatable {
    /// Steps taken.
    public var step: Int
    /// Checksum of the text.
    public var dataChecksum: UInt64
    /// The values of the recipe keys without which a step is not what it was: ``Recipe/resumeSettings``.
    public var settings: [String: String]

    /// A state.
    public init(step: Int, dataChecksum: UInt64, settings: [String: String]) {
        self.step = step
        self.dataChecksum = dataChecksum
        self.settings = settings
    }

    /// `key value` lines; 64-bit numbers do not survive every JSON reader.
    var text: String {
        let lines = settings.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)\n" }
        return "apus_state 1\nstep \(step)\ndata_checksum \(dataChecksum)\n" + lines.joined()
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
        dataChecksum = try field("data_checksum") { UInt64($0) }
        for key in ["apus_state", "step", "data_checksum"] as [Substring] { fields[key] = nil }
        settings = Dictionary(uniqueKeysWithValues: fields.map { (String($0.key), String($0.value)) })
    }
}

extension Recipe {
    /// What a resumed run must share with its beginning, besides model and text.
    ///
    /// With the step these keys decide which sequences and which draws come next. Rates, schedule, clipping and what is
    /// written may change.
    var resumeSettings: [String: String] {
        [
            "seed": "\(seed)",
            "data.sources": data.sources.map { $0.weight.map { "\($0)" } ?? "-" }.joined(separator: ","),
            "data.temperature": "\(data.temperature)", "data.document_mask": "\(data.documentMask)",
            "data.sequence_length": "\(data.sequenceLength)", "data.held_out": "\(data.heldOut)",
            "data.shuffle": "\(data.shuffle)", "training.batch": "\(training.batch)",
            "training.precision": training.precision.rawValue, "training.routing_group": "\(training.routingGroup)",
            "training.balance_group": "\(training.balanceGroup)",
        ]
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
    /// Another run is writing into the folder.
    case runInProgress(folder: String)
    /// The checkpoint is of a run with another setting that decides its numbers.
    case different(folder: String, what: String, saved: String, asked: String)
    /// The ranks together do not hold the whole of a tensor, so that it cannot be saved.
    case incomplete(tensor: String)
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
        case .runInProgress(let folder):
            "'\(folder)' is being written by another run; wait until that has ended, stop it, or choose another --out"
        case .different(let folder, let what, let saved, let asked):
            "'\(folder)' was trained with \(what) \(saved), not \(asked); resume with the recipe it began with"
        case .incomplete(let tensor):
            "'\(tensor)' cannot be saved: the ranks together do not hold all of it; train with another layout"
        }
    }
}
