/// How tokens become text again.
enum TokenDecoder: Sendable, Equatable {
    /// Tokens are written in the byte alphabet.
    case bytes
    /// Tokens are text in which a mark stands for a space.
    ///
    /// - Parameter dropsFirst: marks in the first token stand for nothing.
    case marks(mark: [UInt8], dropsFirst: Bool)
    /// Replacements in each token, then tokens such as `<0x0A>` as their byte.
    ///
    /// - Parameter strips: what the whole text does not begin with: it is taken off once.
    case replacements([[[UInt8]]], usesBytes: Bool, strips: [UInt8])

    /// The bytes of a token anywhere but at the beginning of a text.
    func bytes(of token: [UInt8]) -> [UInt8] {
        switch self {
        case .bytes: return token.withUnsafeBufferPointer { ByteAlphabet.bytes(of: $0) } ?? token
        case .marks(let mark, _): return TokenDecoder.replacing(mark, by: [0x20], in: token)
        case .replacements(let pairs, let usesBytes, _):
            let text = pairs.reduce(token) { TokenDecoder.replacing($1[0], by: $1[1], in: $0) }
            if usesBytes, let byte = TokenDecoder.byte(text) { return [byte] }
            return text
        }
    }

    /// The bytes of the first token of a text.
    func bytes(ofFirst token: [UInt8]) -> [UInt8] {
        switch self {
        case .marks(let mark, true): return TokenDecoder.replacing(mark, by: [], in: token)
        case .replacements(_, _, let strips) where !strips.isEmpty:
            let text = bytes(of: token)
            return text.starts(with: strips) ? Array(text.dropFirst(strips.count)) : text
        default: return bytes(of: token)
        }
    }

    private static func replacing(_ pattern: [UInt8], by content: [UInt8], in text: [UInt8]) -> [UInt8] {
        text.withUnsafeBufferPointer { buffer in
            guard let start = buffer.baseAddress else { return text }
            return Normalizer.replacing(pattern, by: content, start, 0..<buffer.count) ?? text
        }
    }

    /// The byte of a token such as `<0x0A>`.
    private static func byte(_ token: [UInt8]) -> UInt8? {
        guard token.count == 6, token.starts(with: Array("<0x".utf8)), token[5] == UInt8(ascii: ">") else { return nil }
        return UInt8(String(decoding: token[3..<5], as: UTF8.self), radix: 16)
    }
}

extension TokenizerParts {
    /// The decoder.
    func decoderValue() throws(TokenizerError) -> TokenDecoder {
        let trees = sequence(decoder, of: "decoders")
        let works = "ByteLevel, Metaspace, or a Sequence of Replace, ByteFallback, Fuse and Strip in this order"
        if trees.count == 1, type(trees[0]) == "ByteLevel" { return .bytes }
        if trees.count == 1, type(trees[0]) == "Metaspace" {
            let metaspace = try metaspace(trees[0], of: "decoder")
            var mark: [UInt8] = []
            UTF8Scalar.append(metaspace.mark, to: &mark)
            return .marks(mark: mark, dropsFirst: metaspace.prepend != .never)
        }
        if trees.isEmpty { throw unsupported("decoder", "null", works: works) }
        var replacements: [[[UInt8]]] = []
        var usesBytes = false
        var isFused = false
        var strips: [UInt8] = []
        for tree in trees {
            switch type(tree) {
            case "Replace" where !usesBytes && !isFused:
                let (pattern, content) = try replacement(tree, of: "decoder")
                replacements.append([pattern, content])
            case "ByteFallback" where !usesBytes && !isFused: usesBytes = true
            case "Fuse" where strips.isEmpty: isFused = true
            case "Strip" where isFused && strips.isEmpty:
                guard tree["start"]?.wholeNumber == 1, tree["stop"]?.wholeNumber == 0 else {
                    throw unsupported(
                        "decoder Strip",
                        "with start \(tree["start"]?.shown ?? "missing") and stop \(tree["stop"]?.shown ?? "missing")",
                        works: "start 1 and stop 0")
                }
                strips = Array(try text(tree, "content", of: "decoder Strip").utf8)
            default: throw unsupported("decoder", "'\(type(tree))' at this place", works: works)
            }
        }
        return .replacements(replacements, usesBytes: usesBytes, strips: strips)
    }
}
