public import ApusModels

extension SamplingOptions {
    /// What is asked for, and where nothing is, what the model's folder says.
    ///
    /// Without a `temperature` here, tokens are drawn if the folder says so (`do_sample`), at its temperature, or at 1
    /// when it has none. Its `top_k` and `top_p` bound every draw for which no other bound is asked. A bound that the
    /// folder leaves out is none.
    public init(
        _ defaults: GenerationDefaults, temperature: Float? = nil, topK: Int? = nil, topP: Float? = nil,
        seed: UInt64 = 0
    ) {
        let usual: Float = defaults.isSampled == true ? defaults.temperature ?? 1 : 0
        self.init(
            temperature: temperature ?? usual, topK: topK ?? defaults.topK ?? 0, topP: topP ?? defaults.topP ?? 1,
            seed: seed)
    }
}
