import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusInference

// Shape letters: T tokens, B tokens in a block, Hk key heads, H head width.

@Suite struct `The block cache` {
    private let backend = CPUBackend(threadCount: 1)
    private static let layout = BlockCache.Layout(layers: 2, heads: 2, headWidth: 3, dtype: .f32)

    private func makeCache(blockSize: Int = 16, limitTokens: Int? = nil) throws -> BlockCache {
        try BlockCache(Self.layout, backend: backend, blockSize: blockSize, limitTokens: limitTokens)
    }

    /// Keys (T, Hk, H) whose every element names the layer, the sequence and the position.
    private func rows(_ layer: Int, _ tokens: [(sequence: Int, position: Int)], sign: Float) throws -> Tensor {
        let values = tokens.flatMap { token in
            (0..<6).map { sign * Float(((layer * 10 + token.sequence) * 1000 + token.position) * 6 + $0) }
        }
        // As in a fused projection, rows lie further apart than they are wide.
        return try backend.allocator.floating(values, Shape(tokens.count, 6), rowPadding: 4).reshaped(
            tokens.count, 2, 3)
    }

    /// Adds tokens to sequences in one step and checks that each layer's view holds all of each, old and new.
    private func step(
        _ cache: BlockCache, _ parts: [(name: Int, id: BlockCache.SequenceID, tokens: Int)]
    ) throws {
        let starts = parts.map { cache.length(of: $0.id) }
        let tokens = zip(parts, starts).flatMap { part, start in
            (start..<start + part.tokens).map { (sequence: part.name, position: $0) }
        }
        try cache.step(parts.map { BlockCache.Entry($0.id, tokens: $0.tokens) }) { layout in
            #expect(layout.positions.array(of: Int32.self) == tokens.map { Int32($0.position) })
            for layer in 0..<2 {
                let view = try cache.append(
                    layer: layer, keys: rows(layer, tokens, sign: 1), values: rows(layer, tokens, sign: -1))
                for (row, part) in parts.enumerated() {
                    let whole = (0..<starts[row] + part.tokens).map { (sequence: part.name, position: $0) }
                    let expected = try rows(layer, whole, sign: 1).floats()
                    #expect(try read(view, view.keys, row) == expected)
                    #expect(try read(view, view.values, row) == expected.map { -$0 })
                }
            }
        }
        for (part, start) in zip(parts, starts) { #expect(cache.length(of: part.id) == start + part.tokens) }
    }

    /// What attention would read of the view's sequence `row`.
    private func read(_ view: KVView, _ pool: Tensor, _ row: Int) throws -> [Float] {
        guard case .blocks(let table, let lengths) = view.layout else { return [] }
        let width = table.shape[1]
        let size = pool.shape[1]
        let blocks = table.array(of: Int32.self)[row * width..<(row + 1) * width]
        return (0..<Int(lengths.array(of: Int32.self)[row])).flatMap { token -> [Float] in
            let block = Int(blocks[row * width + token / size])
            return pool[block..<block + 1].reshaped(size, 6)[token % size..<token % size + 1].floats()
        }
    }

    @Test(arguments: [16, 17, 31, 64])
    func `keeps sequences of odd lengths apart as they grow in turn`(blockSize: Int) throws {
        let cache = try makeCache(blockSize: blockSize)
        let ids = (0..<4).map { _ in cache.addSequence() }
        try step(cache, [(0, ids[0], 5), (1, ids[1], blockSize), (2, ids[2], 3 * blockSize + 1)])
        try step(cache, [(2, ids[2], 1), (0, ids[0], 1)])
        for _ in 0..<blockSize + 2 { try step(cache, [(1, ids[1], 1), (3, ids[3], 2), (0, ids[0], 1)]) }
        try step(cache, [(3, ids[3], 77), (2, ids[2], 2 * blockSize - 2)])
        let all = ids.flatMap { cache.blocks(of: $0) }
        #expect(Set(all).count == all.count, "two sequences share a block")
        #expect(all.count == cache.usedBlocks)
        for id in ids { #expect(cache.blocks(of: id).count == cache.blocks(for: cache.length(of: id))) }
    }

    @Test func `uses the blocks of removed sequences again`() throws {
        let cache = try makeCache()
        let long = cache.addSequence()
        let other = cache.addSequence()
        try step(cache, [(0, long, 100), (1, other, 10)])
        let freed = Set(cache.blocks(of: long))
        let capacity = cache.capacityTokens
        let bytes = backend.allocator.statistics[.keyValueCache]
        cache.remove(long)
        #expect(cache.usedBlocks == 1)
        for name in 2..<9 {
            let next = cache.addSequence()
            try step(cache, [(name, next, 90), (1, other, 1)])
            #expect(freed.isSuperset(of: cache.blocks(of: next)))
            cache.remove(next)
        }
        #expect(cache.capacityTokens == capacity)
        #expect(backend.allocator.statistics[.keyValueCache] == bytes)
        try step(cache, [(1, other, 3)])
    }

    @Test func `takes no memory before the first token, and returns all of it`() throws {
        try expectNoLeak(in: backend.allocator) {
            let cache = try makeCache()
            let id = cache.addSequence()
            #expect(backend.allocator.statistics[.keyValueCache] == 0)
            try step(cache, [(0, id, 200)])
            #expect(backend.allocator.statistics[.keyValueCache] >= 2 * 2 * 200 * 6 * 4)
        }
        #expect(backend.allocator.statistics[.keyValueCache] == 0)
    }

    @Test func `leaves sequences as they were when a step fails`() throws {
        struct Stop: Error {}
        let cache = try makeCache()
        let (a, b) = (cache.addSequence(), cache.addSequence())
        try step(cache, [(0, a, 20)])
        let before = cache.blocks(of: a)
        #expect(throws: Stop.self) {
            try cache.step([BlockCache.Entry(a, tokens: 30), BlockCache.Entry(b, tokens: 30)]) { _ in
                let tokens = (0..<60).map { (sequence: 9, position: $0) }
                _ = try cache.append(layer: 0, keys: rows(0, tokens, sign: 1), values: rows(0, tokens, sign: 1))
                throw Stop()
            }
        }
        #expect(cache.length(of: a) == 20 && cache.blocks(of: a) == before)
        #expect(cache.length(of: b) == 0 && cache.blocks(of: b).isEmpty && cache.usedBlocks == 2)
        try step(cache, [(0, a, 30), (1, b, 5)])
    }

    @Test func `stops at its limit with what to lower, and goes on below it`() throws {
        let cache = try makeCache(limitTokens: 100)
        #expect(cache.limitTokens == 96)
        let (a, b) = (cache.addSequence(), cache.addSequence())
        try step(cache, [(0, a, 40)])
        let error = #expect(throws: InferenceError.self) { try step(cache, [(0, a, 1), (1, b, 49)]) }
        #expect(error == .cacheFull(neededTokens: 64, heldTokens: 48, limitTokens: 96))
        #expect(String(describing: error).contains("--max-tokens"))
        try step(cache, [(0, a, 1), (1, b, 48)])
        #expect(cache.usedBlocks == 6 && cache.capacityTokens == 96)
    }

    @Test func `survives memory that runs out between layers`() throws {
        let small = CPUBackend(threadCount: 1, memoryLimit: 40_000)
        let layout = BlockCache.Layout(layers: 3, heads: 2, headWidth: 8, dtype: .f32)
        let cache = try BlockCache(layout, backend: small)
        let id = cache.addSequence()
        func grow(_ tokens: Int) throws {
            try cache.step([BlockCache.Entry(id, tokens: tokens)]) { _ in
                let keys = try small.zeros(Shape(tokens, 2, 8), .f32)
                for layer in 0..<3 { _ = try cache.append(layer: layer, keys: keys, values: keys) }
            }
        }
        try grow(40)
        let error = #expect(throws: TensorError.self) { try grow(60) }
        #expect(String(describing: error).contains("key-value cache"))
        #expect(cache.length(of: id) == 40 && cache.usedBlocks == 3)
        try grow(8)
        #expect(cache.length(of: id) == 48)
    }

    @Test(arguments: [0, 15, 65])
    func `refuses blocks of a size that it does not have`(blockSize: Int) {
        #expect(throws: InferenceError.self) { try makeCache(blockSize: blockSize) }
    }
}
