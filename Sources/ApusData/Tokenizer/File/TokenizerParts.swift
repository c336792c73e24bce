/// All that a `tokenizer.json` says: the model's tables, and the small parts as they are written.
struct TokenizerParts: Sendable {
    /// Where it is from, for messages.
    var path: String
    var normalizer = JSONTree.null
    var preTokenizer = JSONTree.null
    var postProcessor = JSONTree.null
    var decoder = JSONTree.null
    /// How the text of a batch is cut and filled up; kept, and not carried out.
    var truncation = JSONTree.null
    var padding = JSONTree.null
    var addedTokens: [AddedToken] = []
    var tokens = TokenTable()
    /// Merges by rank.
    var rules: [MergeRule] = []
    var unknown = BPEModel.Unknown()
    var ignoresMerges = false

    /// An error that names a part.
    func unsupported(_ part: String, _ found: String, works: String) -> TokenizerError {
        .unsupported(path: path, part: part, found: found, works: works)
    }

    /// An error of parts that contradict each other.
    func inconsistent(_ reason: String) -> TokenizerError { .inconsistent(path: path, reason: reason) }

    /// The parts of a `Sequence`, in order; a part that is none is a list of one, and null of none.
    func sequence(_ tree: JSONTree, of key: String) -> [JSONTree] {
        if tree == .null { return [] }
        guard tree["type"]?.text == "Sequence", let elements = tree[key]?.elements else { return [tree] }
        return elements.flatMap { sequence($0, of: key) }
    }

    /// A flag of a part.
    func flag(_ tree: JSONTree, _ key: String, default fallback: Bool, of part: String) throws(TokenizerError) -> Bool {
        guard let value = tree[key] else { return fallback }
        guard let flag = value.flag else { throw unsupported("\(part).\(key)", value.shown, works: "true or false") }
        return flag
    }

    /// A text of a part.
    func text(_ tree: JSONTree, _ key: String, of part: String) throws(TokenizerError) -> String {
        guard let text = tree[key]?.text else {
            throw unsupported("\(part).\(key)", tree[key]?.shown ?? "missing", works: "a text")
        }
        return text
    }

    /// The name of a part's type.
    func type(_ tree: JSONTree) -> String { tree["type"]?.text ?? tree.shown }
}
