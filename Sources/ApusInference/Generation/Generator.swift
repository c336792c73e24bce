import ApusExperts
public import ApusKernels
public import ApusModels
import ApusNN
import ApusTensor

// Shape letters: T tokens of a pass, S sequences, V vocabulary.

/// Continues prompts of any lengths together.
///
/// 1. Prompts are admitted in their order, as many as the cache has room for to their longest possible end.
/// 2. A pass takes each admitted sequence's tokens that the model has not seen: a prompt at first, one token later. The
///    batch is ragged, nothing is padded.
/// 3. Logits are computed for the last token of each sequence alone; the sampler chooses the next.
/// 4. On a device, greedy steps of one token run without the host between them (``DecodeRun``).
/// 5. A sequence that ends leaves the batch and gives its blocks back; waiting prompts take its place.
///
/// On a batch-invariant backend a sequence's tokens are the same to the bit whoever else is in the batch and however the
/// passes are cut; otherwise logits agree within rounding.
public struct Generator {
    /// The model.
    public let model: Transformer
    /// Where it runs.
    public let backend: any Backend
    /// How sequences are continued.
    public let options: GenerationOptions
    private let sampler: Sampler

    /// A generator.
    ///
    /// - Throws: ``InferenceError/invalidOption(name:value:expected:)``
    public init(_ model: Transformer, backend: any Backend, options: GenerationOptions) throws(InferenceError) {
        try options.validate()
        guard model.configuration.patches == nil else { throw .classifiesImages }
        if let end = options.ends.filter({ !model.hasToken($0) }).min() {
            throw .invalidOption(
                name: "an id that ends a sequence", value: "\(end)",
                expected: "0 ... \(model.configuration.vocabulary - 1)")
        }
        self.model = model
        self.backend = backend
        self.options = options
        sampler = try Sampler(options.sampling)
    }

    /// The continuations of lists of ids, which are keyed by their places.
    ///
    /// - Throws: what ``generate(_:onToken:)-(Array<Prompt>,_)`` throws.
    public func generate(
        _ prompts: [[Int32]], onToken: (GeneratedToken) throws -> Void = { _ in }
    ) throws -> [Generation] {
        try generate(prompts.enumerated().map { Prompt($1, index: $0) }, onToken: onToken)
    }

    /// The continuations of `prompts`, in their order; `onToken` hears of every token at once, and may throw to stop.
    ///
    /// - Throws: ``InferenceError`` before anything runs for prompts that cannot be continued, later for a model that
    ///   yields NaN; ``TensorError`` when memory runs out.
    public func generate(
        _ prompts: [Prompt], onToken: (GeneratedToken) throws -> Void = { _ in }
    ) throws -> [Generation] {
        let cache = try makeCache()
        var states = try prompts.enumerated().map { try Continuation($1, place: $0, self) }
        if let limit = cache?.limitTokens, let cache { try checkRoom(states, limit, cache) }
        var waiting = states.indices.makeIterator()
        var next = waiting.next()
        var running: [Int] = []
        while next != nil || !running.isEmpty {
            while let index = next, hasRoom(for: states[index], beside: running.map { states[$0] }, cache) {
                states[index].sequence = cache?.addSequence()
                running.append(index)
                next = waiting.next()
            }
            if let cache, steps(running.map { states[$0] }) > 0 {
                try decode(&states, running, cache, onToken)
            } else {
                try advance(&states, running, cache, onToken)
            }
            for index in running where states[index].finish != nil {
                if let sequence = states[index].sequence { cache?.remove(sequence) }
            }
            running.removeAll { states[$0].finish != nil }
        }
        return states.map { Generation(tokens: $0.generated, finish: $0.finish ?? .length) }
    }

    private func makeCache() throws(InferenceError) -> BlockCache? {
        guard options.keepsKeys else { return nil }
        return try BlockCache(
            BlockCache.Layout(model), backend: backend, blockSize: options.blockSize, limitTokens: options.cacheTokens)
    }

    /// Refuses what could never run, before anything has.
    private func checkRoom(_ states: [Continuation], _ limit: Int, _ cache: BlockCache) throws(InferenceError) {
        for state in states where cache.blocks(for: state.keptTokens) * cache.blockSize > limit {
            throw .cacheFull(neededTokens: state.keptTokens, heldTokens: 0, limitTokens: limit)
        }
    }

    private func hasRoom(for state: Continuation, beside running: [Continuation], _ cache: BlockCache?) -> Bool {
        guard let cache, let limit = cache.limitTokens else { return true }
        let blocks = (running + [state]).reduce(0) { $0 + cache.blocks(for: $1.keptTokens) }
        return blocks * cache.blockSize <= limit
    }

    /// One pass, and the next token of every sequence whose last token was in it.
    private func advance(
        _ states: inout [Continuation], _ running: [Int], _ cache: BlockCache?,
        _ onToken: (GeneratedToken) throws -> Void
    ) throws {
        var batch: [(index: Int, tokens: ArraySlice<Int32>)] = []
        var room = options.passTokens
        for index in running where room > 0 {
            let unseen = states[index].tokens[states[index].seen...]
            // Without kept keys a sequence is computed whole or not at all.
            let tokens = cache == nil ? unseen : unseen.prefix(room)
            batch.append((index, tokens))
            room -= tokens.count
        }
        let pass = Pass(model: model, backend: backend)
        var rows: [Int32] = []
        var ready: [Int] = []
        var count = 0
        for (index, tokens) in batch {
            count += tokens.count
            guard tokens.endIndex == states[index].tokens.endIndex else { continue }
            rows.append(Int32(count - 1))
            ready.append(index)
        }
        let logits = try pass.logits(
            batch.map(\.tokens), sequences: cache == nil ? nil : batch.compactMap { states[$0.index].sequence },
            rows: rows, cache)
        if cache != nil { for (index, tokens) in batch { states[index].seen += tokens.count } }
        guard !ready.isEmpty else { return }
        let places = ready.map { Sampler.Place(sequence: states[$0].prompt.index, position: states[$0].tokens.count) }
        for (index, id) in zip(ready, try sampler.choose(logits, places, backend)) {
            let token = states[index].append(id, options)
            try onToken(token)
        }
    }
}
