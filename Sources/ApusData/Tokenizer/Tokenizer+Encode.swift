public import ApusTensor
import Synchronization

/// What encoding makes of special tokens.
public struct EncodingOptions: Sendable, Equatable {
    /// A special token's text becomes its id: for prompts that a program has put together, never for what people wrote.
    public var readsSpecial: Bool
    /// The file's template is added, such as an id for the beginning.
    public var addsTemplate: Bool

    /// By default text is text, and nothing is added.
    public init(readsSpecial: Bool = false, addsTemplate: Bool = false) {
        self.readsSpecial = readsSpecial
        self.addsTemplate = addsTemplate
    }
}

extension Tokenizer {
    /// The ids of `bytes`; special ids are never among them.
    public func encode(_ bytes: [UInt8]) -> [Int32] { encode(bytes, options: EncodingOptions()) }

    /// The ids of `bytes`.
    public func encode(_ bytes: [UInt8], options: EncodingOptions) -> [Int32] {
        bytes.withUnsafeBufferPointer { encode($0, options: options) }
    }

    /// The ids of `bytes`.
    public func encode(_ bytes: UnsafeBufferPointer<UInt8>, options: EncodingOptions) -> [Int32] {
        withWorkspace { work in
            work.removeIDs()
            if options.addsTemplate { work.append(template.prefix) }
            encode(bytes, readsSpecial: options.readsSpecial, work)
            if options.addsTemplate { work.append(template.suffix) }
            return work.takeIDs()
        }
    }

    /// The ids of each document, in parallel.
    public func encodeBatch(
        _ documents: [[UInt8]], options: EncodingOptions = EncodingOptions(), pool: ThreadPool
    ) -> [[Int32]] {
        let pieces = documents.indices.flatMap { index in
            cuts(documents[index]).map { (document: index, range: $0) }
        }
        let groups = Tokenizer.groups(pieces.map(\.range.count))
        var encoded = [[Int32]](repeating: [], count: pieces.count)
        encoded.withUnsafeMutableBufferPointer { encoded in
            // Each part writes its own elements.
            nonisolated(unsafe) let encoded = encoded
            pool.run(parts: groups.count) { group, _ in
                withWorkspace { work in
                    for place in groups[group] {
                        let piece = pieces[place]
                        work.removeIDs()
                        documents[piece.document].withUnsafeBufferPointer {
                            encode(
                                UnsafeBufferPointer(rebasing: $0[piece.range]), readsSpecial: options.readsSpecial, work
                            )
                        }
                        encoded[place] = work.takeIDs()
                    }
                }
            }
        }
        var results = [[Int32]](repeating: [], count: documents.count)
        for (piece, ids) in zip(pieces, encoded) {
            if results[piece.document].isEmpty { results[piece.document] = ids } else { results[piece.document] += ids }
        }
        guard options.addsTemplate else { return results }
        return results.map { template.prefix + $0 + template.suffix }
    }

    /// Runs of consecutive pieces of about ``partBytes`` together.
    private static func groups(_ sizes: [Int]) -> [Range<Int>] {
        var groups: [Range<Int>] = []
        var start = 0
        var bytes = 0
        for (place, size) in sizes.enumerated() {
            bytes += size
            if bytes >= partBytes || place == sizes.count - 1 {
                groups.append(start..<place + 1)
                (start, bytes) = (place + 1, 0)
            }
        }
        return groups
    }

    func withWorkspace<Value>(_ body: (EncodingWorkspace) -> Value) -> Value {
        let work = workspaces.withLock { $0.popLast() } ?? EncodingWorkspace()
        defer { workspaces.withLock { $0.append(work) } }
        return body(work)
    }
}
