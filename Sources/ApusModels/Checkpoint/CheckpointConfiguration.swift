/// What the `config.json` of a checkpoint says, be it Apus' own or a Hugging Face folder's.
public struct CheckpointConfiguration: Sendable, Equatable {
    /// The model.
    public let configuration: ModelConfiguration
    /// The family whose names the tensors have; `nil` for Apus' own.
    public let family: HubFamily?
    /// The format of the weights as Hugging Face names it (`bfloat16`), when the file says so.
    public let dtype: String?
    /// Special ids that the file names.
    public let tokens: SpecialTokens

    /// Reads `config.json`, whichever kind it is; `model_type` decides.
    ///
    /// Both spellings of keys are understood: `rope_theta` or `rope_parameters`, `torch_dtype` or `dtype`,
    /// `num_experts` or `num_local_experts`. Keys that the family's own code does not read are passed over, as it does.
    ///
    /// - Parameter path: where the text is from, for errors.
    /// - Throws: what ``ModelConfiguration/init(json:path:)`` throws; `unknownArchitecture`; `unsupported` for a value
    ///   that would change the numbers in a way Apus does not compute.
    public init(json: String, path: String = "config.json") throws(ModelConfigurationError) {
        let fields = try JSONFields(JSONValue(parsing: json, path: path), path: path)
        let type = try fields.string("model_type")
        if type == ModelConfiguration.modelType {
            configuration = try ModelConfiguration(fields)
            (family, dtype, tokens) = (nil, nil, SpecialTokens())
            return
        }
        guard let family = HubFamily(rawValue: type) else { throw .unknownArchitecture(path: path, found: type) }
        self.family = family
        configuration = try family.configuration(fields)
        dtype = try fields.value(anyOf: ["dtype", "torch_dtype"]).map { entry throws(ModelConfigurationError) in
            guard case .string(let name) = entry.value else { throw fields.wrong(entry.key, entry.value, "a string") }
            return name
        }
        tokens = try SpecialTokens(fields)
    }
}

extension SpecialTokens {
    /// The ids that a `config.json` or `generation_config.json` names.
    init(_ fields: JSONFields) throws(ModelConfigurationError) {
        self.init(
            beginning: try fields.optionalInteger("bos_token_id"), ends: try fields.tokenIds("eos_token_id"),
            padding: try fields.optionalInteger("pad_token_id", from: -1).flatMap { $0 < 0 ? nil : $0 })
    }
}

extension JSONFields {
    /// One id or a list of them; none for null.
    fileprivate func tokenIds(_ key: String) throws(ModelConfigurationError) -> [Int] {
        guard case .array(let elements)? = value(key) else { return try optionalInteger(key).map { [$0] } ?? [] }
        return try elements.map { element throws(ModelConfigurationError) in
            guard case .integer(let id) = element, id >= 0 else { throw wrong(key, element, "a list of token ids") }
            return id
        }
    }
}
