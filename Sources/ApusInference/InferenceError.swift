/// What a caller can get wrong in generation and evaluation, and what a broken model makes go wrong.
public enum InferenceError: Error, Sendable, Equatable {
    /// An option has a value that it cannot have.
    case invalidOption(name: String, value: String, expected: String)
    /// A prompt has no token, and there is no end-of-document id to start from.
    case emptyPrompt(prompt: Int)
    /// A prompt leaves no room for a token after it.
    case promptTooLong(prompt: Int, tokens: Int, context: Int)
    /// A sequence does not fit into the model's context.
    case sequenceTooLong(sequence: Int, tokens: Int, context: Int)
    /// An id that the model has no row for.
    case tokenOutsideVocabulary(sequence: Int, position: Int, id: Int32, vocabulary: Int)
    /// No sequence has a token that follows another one.
    case nothingToEvaluate(sequences: Int)
    /// A model that classifies images was to read text.
    case classifiesImages
    /// A model of text was to classify images.
    case readsText
    /// The blocks that the cache may have are all in use.
    case cacheFull(neededTokens: Int, heldTokens: Int, limitTokens: Int)
    /// A logit is NaN or infinite, or nothing can be chosen: the weights are broken.
    case unusableLogits(sequence: Int, position: Int, id: Int32, value: Float)
}

extension InferenceError: CustomStringConvertible {
    /// One sentence or two: what was wrong, where, and what would work.
    public var description: String {
        switch self {
        case .invalidOption(let name, let value, let expected):
            return "\(name) is \(value): it must be \(expected)"
        case .emptyPrompt(let prompt):
            return """
                prompt \(prompt) is empty and the vocabulary has no end-of-document id to start from: give it at least \
                one token
                """
        case .promptTooLong(let prompt, let tokens, let context):
            return """
                prompt \(prompt) has \(tokens) tokens, which leaves no room in the model's context of \(context): give at \
                most \(max(context - 1, 0))
                """
        case .sequenceTooLong(let sequence, let tokens, let context):
            return """
                sequence \(sequence) has \(tokens) tokens, more than the model's context of \(context): cut it into pieces \
                of at most \(context)
                """
        case .tokenOutsideVocabulary(let sequence, let position, let id, let vocabulary):
            return """
                token \(id) at position \(position) of sequence \(sequence) is outside the model's vocabulary: ids are \
                0 ... \(vocabulary - 1). Was the text encoded with this model's tokenizer?
                """
        case .nothingToEvaluate(let sequences):
            return """
                none of the \(sequences) sequences has two tokens, so there is nothing to predict: give at least one of \
                two tokens or more
                """
        case .classifiesImages:
            return
                "the model classifies images and neither reads nor writes text: give 'apus eval' a file of images as --data"
        case .readsText:
            return "the model reads text, not images: classifying needs one that was trained with model.patches"
        case .cacheFull(let needed, let held, let limit):
            return """
                the key-value cache may hold \(limit) tokens, \(held) are held and \(needed) more are needed: lower \
                --max-tokens or the number of prompts, or raise the cache's limit
                """
        case .unusableLogits(let sequence, let position, let id, let value):
            return """
                the logit of token \(id) is \(value) at position \(position) of sequence \(sequence): the weights hold \
                values that are not finite, or too large for their type
                """
        }
    }
}
