import ApusTensor

/// What can be wrong with a model's description: its file, its values, or what it is to be turned into.
public enum ModelConfigurationError: Error, Sendable, Equatable {
    /// The text is not the JSON it should be.
    case malformed(path: String, reason: String)
    /// A key that has to be there is not.
    case missingKey(path: String, key: String)
    /// A key that nothing reads; `nearest` is one that exists.
    case unknownKey(path: String, key: String, nearest: String?)
    /// A value of the wrong type or outside its range.
    case wrongValue(path: String, key: String, found: String, wanted: String)
    /// A value that is in order, but stands for numbers that Apus does not compute.
    case unsupported(path: String, key: String, found: String, reason: String)
    /// A model of a kind that Apus does not know.
    case unknownArchitecture(path: String, found: String)
    /// Sizes or settings that no model can have.
    case impossible(key: String, found: String, reason: String)
    /// A property that a family of Hugging Face models has no way to say; `others` are families that have.
    case notExpressible(family: HubFamily, key: String, found: String, others: [HubFamily])
    /// No preset has this name; `nearest` is one that exists.
    case unknownPreset(name: String, nearest: String?)
}

extension ModelConfigurationError: CustomStringConvertible {
    /// One line: what is wrong, where, and what would work.
    public var description: String {
        switch self {
        case .malformed(let path, let reason):
            "\(quoted(path)): \(reason); copy or write the file again"
        case .missingKey(let path, let key):
            "\(quoted(path)): has no key \(quoted(key)), which this kind of model needs; add it"
        case .unknownKey(let path, let key, let nearest):
            "\(quoted(path)): unknown key \(quoted(key))"
                + (nearest.map { "; the nearest known one is \(quoted($0))" } ?? "; remove it")
        case .wrongValue(let path, let key, let found, let wanted):
            "\(quoted(path)): \(quoted(key)) is \(found); it must be \(wanted)"
        case .unsupported(let path, let key, let found, let reason):
            "\(quoted(path)): \(quoted(key)) is \(found): \(reason)"
        case .unknownArchitecture(let path, let found):
            "\(quoted(path)): a model of type \(quoted(found)) is not supported; supported are 'apus', "
                + HubFamily.allCases.map { quoted($0.rawValue) }.joined(separator: ", ")
        case .impossible(let key, let found, let reason):
            "\(quoted(key)) is \(found): \(reason)"
        case .notExpressible(let family, let key, let found, let others):
            "\(quoted(key)) is \(found), which \(family.title) models have no way to say; "
                + (others.isEmpty
                    ? "no supported Hugging Face family has: keep the model in Apus' own form"
                    : "\(others.map(\.title).joined(separator: " and ")) models have")
        case .unknownPreset(let name, let nearest):
            "no preset is named \(quoted(name))"
                + (nearest.map { "; the nearest is \(quoted($0))" } ?? "")
        }
    }
}
