import ApusData
import ApusModels

/// How a model's text becomes tokens and back.
struct ModelText {
    /// What gives tokens their ids.
    let named: NamedVocabulary
    /// Whether prompts begin and end as the tokenizer's file says, for a model that was trained so.
    private let addsTemplate: Bool
    /// The id before every prompt that the tokenizer's own file does not tell.
    private let beginning: Int32?

    /// The vocabulary.
    var vocabulary: any Vocabulary { named.vocabulary }

    /// Reads a model's vocabulary; `nil` if none belongs to it.
    ///
    /// - Parameter name: the one to use instead of the model's own: `bytes`, or a tokenizer's file.
    /// - Throws: ``ModelTextError``; what is wrong with the tokenizer's file.
    init?(_ model: Checkpoint, named name: String? = nil) throws {
        guard let name = name ?? ModelText.name(in: model) else { return nil }
        named = try NamedVocabulary.open(name)
        let (size, own) = (named.identity.size, model.configuration.vocabulary)
        guard size <= own else {
            throw ModelTextError.tooLarge(tokenizer: name, size: size, folder: model.folder, vocabulary: own)
        }
        // What a run has trained on was prepared without one.
        addsTemplate = !model.isOfRun
        let tokens = try GenerationDefaults(folder: model.folder).tokens
        let ids = tokens.beginning ?? model.model.configuration.tokens.beginning
        let knowsTemplate = !(named.vocabulary is SentencePieceVocabulary)
        beginning = knowsTemplate || model.isOfRun ? nil : ids.flatMap { $0 < own ? Int32(exactly: $0) : nil }
    }

    /// The vocabulary that a model's folder names: its tokenizer's file, or `bytes` for a run that has none.
    static func name(in model: Checkpoint) -> String? {
        if let file = NamedVocabulary.file(inFolder: model.folder) { return file }
        let (bytes, own) = (ByteVocabulary().size, model.configuration.vocabulary)
        guard model.model.configuration.family == nil, model.configuration.patches == nil else { return nil }
        // A run without a tokenizer was trained on bytes, and may have more ids than it uses.
        return own == bytes || model.isOfRun && own > bytes ? "bytes" : nil
    }

    /// The vocabulary of a command that reads text.
    ///
    /// - Parameter option: what works without one.
    /// - Throws: ``ModelTextError/missing(folder:kind:vocabulary:option:)``; what ``init(_:named:)`` throws.
    static func require(_ model: Checkpoint, named name: String?, instead option: String) throws -> ModelText {
        guard let text = try ModelText(model, named: name) else {
            throw ModelTextError.missing(
                folder: model.folder, kind: model.kind, vocabulary: model.configuration.vocabulary, option: option)
        }
        return text
    }

    /// The ids of a prompt: special tokens in it count, and the file's template is added, as Hugging Face's library does.
    func prompt(_ text: [UInt8]) -> [Int32] {
        guard let tokenizer = vocabulary as? Tokenizer else {
            return (beginning.map { [$0] } ?? []) + vocabulary.encode(text)
        }
        return tokenizer.encode(text, options: EncodingOptions(readsSpecial: true, addsTemplate: addsTemplate))
    }

    /// The text of ids that go on with a prompt.
    func continuation(_ ids: [Int32]) -> String {
        var decoder = StreamingDecoder(isContinuing: true)
        return ids.map { decoder.append($0, of: vocabulary) }.joined() + decoder.finish()
    }
}

/// Text that a model cannot read.
enum ModelTextError: Error, CustomStringConvertible {
    /// There is no vocabulary.
    case missing(folder: String, kind: String, vocabulary: Int, option: String)
    /// The vocabulary has ids that the model has not.
    case tooLarge(tokenizer: String, size: Int, folder: String, vocabulary: Int)

    /// What was wrong, where, and what would work.
    var description: String {
        switch self {
        case .missing(let folder, let kind, let vocabulary, let option):
            "'\(folder)' (\(kind), \(vocabulary) ids) has no tokenizer: put the model's "
                + NamedVocabulary.fileNames.joined(separator: " or ")
                + " there, name it with --tokenizer, or give token ids with \(option)"
        case .tooLarge(let tokenizer, let size, let folder, let vocabulary):
            "tokenizer '\(tokenizer)' has \(size) ids, and the model in '\(folder)' \(vocabulary); use the tokenizer that the "
                + "model was trained with, by --tokenizer or in the model's folder"
        }
    }
}
