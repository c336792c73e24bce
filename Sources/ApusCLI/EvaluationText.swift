import ApusData
import ApusModels

/// What `--data` leads to.
struct EvaluationText {
    let tokens: any TokenSource
    let vocabulary: any Vocabulary

    /// Opens text, or prepared data whose tokens are those of the model.
    init(_ path: String, of model: Checkpoint, tokenizer: String?) throws {
        let text = try ModelText.require(model, named: tokenizer, instead: "--tokens")
        vocabulary = text.vocabulary
        guard ShardSet.isPrepared(path) else {
            tokens = MemoryTokens(try TextCorpus(path: path, vocabulary: text.vocabulary).tokens[...])
            return
        }
        let corpus = try ShardSet(path: path)
        let identity = corpus.manifest.vocabulary
        guard identity.digest == text.named.identity.digest else {
            throw DataError.otherVocabulary(
                path: path, found: "'\(identity.name)', \(identity.size) ids",
                remedy: "prepare it with the model's, '\(text.named.identity.name)'")
        }
        tokens = corpus.heldOut.count > 1 ? corpus.heldOut : corpus.training
    }
}
