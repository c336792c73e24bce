/// A SentencePiece `.model` (Kudo and Richardson, "SentencePiece", 2018), read and applied by `libsentencepiece`.
///
/// The library is looked for when a model is opened; nothing else of Apus needs it. Bytes that are not UTF-8 are
/// encoded as U+FFFD, which is what the library makes of them.
// Sendable: after loading, only functions are called that the library marks as reading; they may run side by side.
public final class SentencePieceVocabulary: Vocabulary, @unchecked Sendable {
    private let library: SentencePieceLibrary
    private let processor: SentencePieceLibrary.Object
    /// The bytes of each piece inside a text.
    private let pieces: [[UInt8]]
    /// Encoding puts a space before the text, which decoding takes off again.
    private let addsPrefixSpace: Bool

    /// Ids are below this.
    public let size: Int
    /// The id of `</s>`, if the model has one.
    public let endOfDocument: Int32?

    /// The object is a handful of pointers; this is ample for every version.
    private static let processorBytes = 1024

    /// Opens a model.
    ///
    /// - Throws: ``TokenizerError``: the library is not there, or it refuses the file.
    public init(file path: String) throws(TokenizerError) {
        switch SentencePieceLibrary.shared {
        case .success(let library): self.library = library
        case .failure(let missing):
            throw .unsupported(
                path: path, part: "libsentencepiece", found: missing.reason, works: SentencePieceLibrary.advice)
        }
        processor = try TokenizerFile.read(path) { [library] model throws(TokenizerError) in
            try SentencePieceVocabulary.open(model, library, path: path)
        }
        size = Int(library.pieceCount(processor))
        let end = library.endID(processor)
        endOfDocument = end >= 0 ? end : nil
        var pieces: [[UInt8]] = []
        for id in 0..<Int32(size) { pieces.append(SentencePieceVocabulary.bytes(library, processor, id)) }
        self.pieces = pieces
        let first = SentencePieceVocabulary.encode(library, processor, [UInt8(ascii: "a")]).first
        addsPrefixSpace = first.map { pieces[Int($0)].first == 0x20 } ?? false
    }

    deinit {
        library.destroy(processor)
        processor.deallocate()
    }

    /// The ids of `bytes`. Control symbols are never among them, whatever the bytes say.
    public func encode(_ bytes: [UInt8]) -> [Int32] { SentencePieceVocabulary.encode(library, processor, bytes) }

    /// The bytes that `id` stands for; none for control symbols.
    public func bytes(of id: Int32) -> [UInt8] { pieces.indices.contains(Int(id)) ? pieces[Int(id)] : [] }

    /// The bytes that `id` stands for as the first of a text: without the space that encoding adds.
    public func bytes(ofFirst id: Int32) -> [UInt8] {
        let bytes = bytes(of: id)
        return addsPrefixSpace && bytes.first == 0x20 ? Array(bytes.dropFirst()) : bytes
    }

    // MARK: Calls

    private static func open(
        _ model: UnsafeRawBufferPointer, _ library: SentencePieceLibrary, path: String
    ) throws(TokenizerError) -> SentencePieceLibrary.Object {
        let processor = SentencePieceLibrary.Object.allocate(byteCount: processorBytes, alignment: 16)
        processor.initializeMemory(as: UInt8.self, repeating: 0, count: processorBytes)
        library.create(processor)
        if let reason = load(library, processor, model.bindMemory(to: UInt8.self)) {
            library.destroy(processor)
            processor.deallocate()
            throw .inconsistent(path: path, reason: "no SentencePiece model: \(reason)")
        }
        return processor
    }

    /// - Returns: what the library says is wrong; nil if nothing is.
    private static func load(
        _ library: SentencePieceLibrary, _ processor: SentencePieceLibrary.Object,
        _ model: UnsafeBufferPointer<UInt8>
    ) -> String? {
        // A status is one pointer, null when all is well.
        var status: UnsafeMutableRawPointer?
        return withUnsafeMutableBytes(of: &status) { memory -> String? in
            guard let status = memory.baseAddress else { return nil }
            library.load(status, processor, model.count, model.baseAddress)
            defer { library.destroyStatus(status) }
            guard memory.load(as: UnsafeMutableRawPointer?.self) != nil else { return nil }
            return library.message(status).map { String(cString: $0) } ?? "no reason given"
        }
    }

    private static func encode(
        _ library: SentencePieceLibrary, _ processor: SentencePieceLibrary.Object, _ bytes: [UInt8]
    ) -> [Int32] {
        // A vector: where it begins, where its elements end, and where its memory ends.
        var vector: (UnsafeMutableRawPointer?, UnsafeMutableRawPointer?, UnsafeMutableRawPointer?) = (nil, nil, nil)
        withUnsafeMutableBytes(of: &vector) { memory in
            guard let result = memory.baseAddress else { return }
            bytes.withUnsafeBufferPointer { library.encode(result, processor, $0.count, $0.baseAddress) }
        }
        guard let start = vector.0, let end = vector.1 else { return [] }
        defer { library.deallocate(start) }
        return Array(UnsafeRawBufferPointer(start: start, count: end - start).bindMemory(to: Int32.self))
    }

    private static func bytes(
        _ library: SentencePieceLibrary, _ processor: SentencePieceLibrary.Object, _ id: Int32
    ) -> [UInt8] {
        func holds(_ function: SentencePieceLibrary.NumberOf) -> Bool { function(processor, id) & 0xFF != 0 }
        if holds(library.isControl) || holds(library.isUnused) { return [] }
        // What the library writes for a piece that it does not know.
        if holds(library.isUnknown) { return Array(" \u{2047} ".utf8) }
        // A string begins with the address of its text and its length.
        let string = library.piece(processor, id)
        guard let text = string.load(as: UnsafeRawPointer?.self) else { return [] }
        let length = string.load(fromByteOffset: 8, as: Int.self)
        let piece = Array(UnsafeRawBufferPointer(start: text, count: length))
        let marks = TokenDecoder.marks(mark: Array("▁".utf8), dropsFirst: false)
        let bytesOf = TokenDecoder.replacements([], usesBytes: true, strips: [])
        return holds(library.isByte) ? bytesOf.bytes(of: piece) : marks.bytes(of: piece)
    }
}
