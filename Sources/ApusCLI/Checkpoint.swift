import ApusData
import ApusModels
import ApusTraining
import Glibc

/// What a CHECKPOINT argument leads to.
struct Checkpoint {
    /// The folder of the model itself: of a run, its newest checkpoint.
    let folder: String
    /// Its configuration and weights.
    let model: ModelFolder

    /// Finds the model and a place for each of its tensors; warns of damaged checkpoints that were passed over.
    ///
    /// - Throws: what ``ModelFolder`` and ``RunFolder`` throw.
    init(_ path: String) throws {
        let (folder, passedOver) = try RunFolder.model(at: path)
        for error in passedOver { writeError("warning: a checkpoint is damaged and passed over: \(error)") }
        if !passedOver.isEmpty { writeError("warning: using '\(folder)' instead") }
        self.folder = folder
        model = try ModelFolder(folder)
    }

    /// The model's description.
    var configuration: ModelConfiguration { model.configuration.configuration }

    /// What the model is called: its family, or Apus' own form.
    var kind: String { model.configuration.family?.title ?? "Apus" }

    /// Whether a run of Apus saved it, or it was made of such a one.
    var isOfRun: Bool { exists("\(folder)/state.txt") || exists("\(folder)/\(Recipe.fileName)") }

    /// The ids that end a text: those of `generation_config.json`, or, where it has none, of `config.json`, or the one
    /// that the vocabulary puts between documents.
    func ends(_ defaults: GenerationDefaults, _ vocabulary: (any Vocabulary)?) -> [Int32] {
        let ids = defaults.tokens.ends.isEmpty ? model.configuration.tokens.ends : defaults.tokens.ends
        if !ids.isEmpty { return ids.map { Int32(clamping: $0) } }
        let end = vocabulary?.endOfDocument
        return end.flatMap { $0 < configuration.vocabulary ? [$0] : nil } ?? []
    }
}

/// Whether a path exists.
func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

/// The bytes of a file, or of standard input for `-`.
///
/// - Throws: what cannot be read, and why.
func readBytes(_ path: String) throws -> [UInt8] {
    guard let file = fopen(path == "-" ? "/dev/stdin" : path, "r") else {
        throw CommandError("'\(path)' cannot be read: \(String(cString: strerror(errno)))")
    }
    defer { fclose(file) }
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while case let count = fread(&buffer, 1, buffer.count, file), count > 0 {
        bytes.append(contentsOf: buffer[..<count])
    }
    guard ferror(file) == 0 else {
        throw CommandError("'\(path)' cannot be read: \(String(cString: strerror(errno)))")
    }
    return bytes
}
