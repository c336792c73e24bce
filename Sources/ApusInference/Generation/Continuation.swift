// Shape letters: V vocabulary.

/// A sequence that is being generated.
struct Continuation {
    /// What it began with.
    let prompt: Prompt
    /// The prompt's place in the list.
    let place: Int
    /// Most tokens it may have in all.
    let limit: Int
    /// What happens at the limit.
    private let limitReason: FinishReason
    private let promptCount: Int
    /// The prompt and what was generated.
    private(set) var tokens: [Int32]
    /// How many of the tokens the cache holds.
    var seen = 0
    /// Its name in the cache.
    var sequence: BlockCache.SequenceID?
    /// Why it ended; `nil` while it goes on.
    private(set) var finish: FinishReason?

    init(_ prompt: Prompt, place: Int, _ generator: Generator) throws(InferenceError) {
        let (model, options) = (generator.model, generator.options)
        var tokens = prompt.tokens
        if tokens.isEmpty {
            guard let start = options.start else { throw .emptyPrompt(prompt: place) }
            tokens = [start]
        }
        try model.check(tokens, sequence: place)
        let context = model.contextLength
        guard tokens.count < context else {
            throw .promptTooLong(prompt: place, tokens: tokens.count, context: context)
        }
        self.prompt = prompt
        self.place = place
        self.tokens = tokens
        promptCount = tokens.count
        let reachesContext = options.maximumTokens > context - tokens.count
        limit = reachesContext ? context : tokens.count + options.maximumTokens
        limitReason = reachesContext ? .context : .length
    }

    /// Most tokens whose keys the cache will hold: all but the last, which nothing follows.
    var keptTokens: Int { limit - 1 }

    /// What was generated.
    var generated: [Int32] { Array(tokens[promptCount...]) }

    mutating func append(_ id: Int32, _ options: GenerationOptions) -> GeneratedToken {
        tokens.append(id)
        finish = options.ends.contains(id) ? .end : tokens.count == limit ? limitReason : nil
        return GeneratedToken(prompt: place, id: id, finish: finish)
    }
}
