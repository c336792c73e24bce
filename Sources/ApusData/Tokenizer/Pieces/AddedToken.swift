/// A token that is found in text before anything else looks at it.
public struct AddedToken: Sendable, Equatable {
    /// Its text.
    public var content: String
    /// Its id.
    public var id: Int32
    /// Part of a model's protocol, such as the end of a document, and not of what people write.
    public var isSpecial: Bool
    /// Found only where no letter, number or mark touches it.
    public var isSingleWord: Bool
    /// Takes in the white space before it.
    public var stripsLeft: Bool
    /// Takes in the white space behind it.
    public var stripsRight: Bool
    /// Looked for after normalisation, as its own normalised text.
    public var isNormalized: Bool

    /// A token; a special one by default.
    public init(
        _ content: String, id: Int32, isSpecial: Bool = true, isSingleWord: Bool = false, stripsLeft: Bool = false,
        stripsRight: Bool = false, isNormalized: Bool = false
    ) {
        self.content = content
        self.id = id
        self.isSpecial = isSpecial
        self.isSingleWord = isSingleWord
        self.stripsLeft = stripsLeft
        self.stripsRight = stripsRight
        self.isNormalized = isNormalized
    }
}
