extension Tokenizer {
    /// The bytes that `id` stands for inside a text; none for special ids and for ids that are no token.
    public func bytes(of id: Int32) -> [UInt8] { specialIDs.contains(id) ? [] : decoder.bytes(of: text(id)) }

    /// The bytes that `id` stands for at the beginning of a text, where some vocabularies leave out a space.
    public func bytes(ofFirst id: Int32) -> [UInt8] {
        specialIDs.contains(id) ? [] : decoder.bytes(ofFirst: text(id))
    }

    /// The text of a token as the vocabulary writes it; of a special one, what it is called.
    public func name(of id: Int32) -> String? {
        let text = text(id)
        return text.isEmpty ? nil : String(decoding: text, as: UTF8.self)
    }

    private func text(_ id: Int32) -> [UInt8] { addedTexts[id] ?? parts.tokens[Int(id)].map(Array.init) ?? [] }
}
