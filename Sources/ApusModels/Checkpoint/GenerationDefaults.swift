import ApusTensor

/// How a folder's model is to be sampled unless its user says otherwise: its `generation_config.json`.
///
/// What the file leaves out, or sets to null, is `nil` here; keys that Apus has no setting for are passed over.
public struct GenerationDefaults: Sendable, Equatable {
    /// The ids that begin, end and pad sequences; `ends` is empty where `eos_token_id` names none.
    public var tokens: SpecialTokens
    /// `do_sample`: whether tokens are drawn; otherwise the most probable one is taken.
    public var isSampled: Bool?
    /// `temperature`, from 0.
    public var temperature: Float?
    /// `top_k`, from 0: how many of the most probable tokens can be drawn, 0 for all.
    public var topK: Int?
    /// `top_p`, above 0 and at most 1: the probability that the tokens which can be drawn reach together.
    public var topP: Float?

    /// Defaults; none by default.
    public init(
        tokens: SpecialTokens = SpecialTokens(), isSampled: Bool? = nil, temperature: Float? = nil, topK: Int? = nil,
        topP: Float? = nil
    ) {
        self.tokens = tokens
        self.isSampled = isSampled
        self.temperature = temperature
        self.topK = topK
        self.topP = topP
    }

    /// Reads those of a folder; none when it has no such file.
    ///
    /// - Parameter vocabulary: V, where it is known: ids that end a sequence are below it.
    /// - Throws: ``FileError``; ``ModelConfigurationError`` with the key that is not what it should be.
    public init(folder: String, vocabulary: Int? = nil) throws {
        let path = "\(folder)/generation_config.json"
        guard try FolderTree.kind(path) != nil else {
            self.init()
            return
        }
        let text = try FileContents(path: path).text
        let fields = try JSONFields(JSONValue(parsing: text, path: path), path: path)
        try self.init(fields)
        if let vocabulary, let end = tokens.ends.first(where: { $0 >= vocabulary }) {
            throw fields.wrong(
                "eos_token_id", .integer(end), "one of the model's ids, 0 ... \(vocabulary - 1), or a list of them")
        }
    }

    private init(_ fields: JSONFields) throws(ModelConfigurationError) {
        tokens = try SpecialTokens(fields)
        isSampled = fields.value("do_sample") == nil ? nil : try fields.bool("do_sample")
        temperature = try fields.optionalFloat("temperature")
        topK = try fields.optionalInteger("top_k")
        topP = try fields.optionalFloat("top_p")
        if let temperature, temperature < 0 {
            throw fields.wrong("temperature", .float(temperature), "0 or a number above")
        }
        if let topP, topP <= 0 || topP > 1 {
            throw fields.wrong("top_p", .float(topP), "above 0 and at most 1")
        }
    }
}
