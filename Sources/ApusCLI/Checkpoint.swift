import ApusData
import ApusKernels
import ApusModels
import ApusNN
import ApusTensor
import ArgumentParser
import Glibc

/// `--threads` and `--device`, which every command that computes has.
struct ComputeOptions: ParsableArguments {
    @Option(help: "Where to compute: auto or cpu.")
    var device = "auto"

    @Option(help: "Threads (default: one for each core that this process may use).")
    var threads: Int?

    func validate() throws {
        if let threads, !(1...1024).contains(threads) { throw ValidationError("--threads must lie in 1 ... 1024") }
    }

    /// The backend asked for.
    func backend(batchInvariant: Bool = false) throws -> CPUBackend {
        try DeviceChoice(device).backend(threads: threads, memoryLimit: nil, batchInvariant: batchInvariant)
    }
}

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

    /// How text becomes tokens; `nil` when the model's vocabulary is not the bytes.
    ///
    /// A checkpoint of a run was trained on bytes, the only vocabulary that training has.
    var vocabulary: ByteVocabulary? {
        let bytes = ByteVocabulary()
        guard model.configuration.family == nil, access("\(folder)/tokenizer.json", F_OK) != 0 else { return nil }
        let isOfRun = access("\(folder)/state.txt", F_OK) == 0
        return configuration.vocabulary == bytes.size || isOfRun && configuration.vocabulary >= bytes.size ? bytes : nil
    }

    /// The ids that end a text: those of `generation_config.json`, or, where it has none, of `config.json`.
    func ends(_ defaults: GenerationDefaults) -> [Int32] {
        let ids = defaults.tokens.ends.isEmpty ? model.configuration.tokens.ends : defaults.tokens.ends
        return ids.map { Int32(clamping: $0) }
    }

    /// What the model is called: its family, or Apus' own form.
    var kind: String { model.configuration.family?.title ?? "Apus" }

    /// The vocabulary of a command that reads text.
    ///
    /// - Throws: when there is none, with the option that works instead.
    func requireVocabulary(instead option: String) throws -> ByteVocabulary {
        guard let vocabulary else {
            throw CommandError(
                "'\(folder)' is a \(kind) model with a vocabulary of \(configuration.vocabulary) tokens that are not "
                    + "bytes, and this build has no tokenizer for it; give token ids with \(option)")
        }
        return vocabulary
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
