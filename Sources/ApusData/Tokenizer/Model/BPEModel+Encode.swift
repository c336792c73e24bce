extension BPEModel {
    /// Appends the ids of one word to `workspace`.
    ///
    /// - Parameter readable: bytes that may be read from `word` on, beyond its end too.
    @inline(__always)
    func encode(
        _ word: UnsafePointer<UInt8>, _ length: Int, readable: Int, _ pairs: PairTable.View, _ work: EncodingWorkspace
    ) {
        guard length <= WordCache.longestWord else {
            merge(word, length, pairs, work)
            return
        }
        let key = WordCache.Key(word, length, readable: readable)
        if let (ids, count) = work.cache.find(key, length: length) {
            work.reserveIDs(WordCache.mostIDs)
            work.append(ids, count)
            return
        }
        let before = work.count
        merge(word, length, pairs, work)
        work.cache.insert(key, length: length, work.ids + before, count: work.count - before)
    }

    @inline(never)
    private func merge(
        _ word: UnsafePointer<UInt8>, _ length: Int, _ pairs: PairTable.View, _ work: EncodingWorkspace
    ) {
        if ignoresMerges, let id = words.id(of: UnsafeBufferPointer(start: word, count: length)) {
            work.reserveIDs(1)
            work.append(Int32(id))
            return
        }
        // A character that falls back to its bytes gives at most one symbol a byte, and one more for what is unknown.
        work.reserveSymbols(length + 1)
        var count = isByteLevel ? byteSymbols(word, length, work) : characterSymbols(word, length, work)
        count =
            count <= EncodingWorkspace.longestScanned
            ? work.scanned.merge(work.symbols, count, pairs)
            : work.long.merge(work.symbols, work.merges, count, pairs)
        work.reserveIDs(count)
        for place in 0..<count { work.append(Int32(bitPattern: work.symbols[place])) }
    }

    private func byteSymbols(_ word: UnsafePointer<UInt8>, _ length: Int, _ work: EncodingWorkspace) -> Int {
        let symbols = work.symbols
        let ids = byteIDs.base
        var run = UnknownRun(self)
        var count = 0
        for place in 0..<length {
            let id = ids[Int(word[place])]
            if id >= 0 {
                count = run.flush(symbols, count)
                symbols[count] = UInt32(bitPattern: id)
                count &+= 1
            } else {
                count = run.add(symbols, count)
            }
        }
        return run.flush(symbols, count)
    }

    private func characterSymbols(_ word: UnsafePointer<UInt8>, _ length: Int, _ work: EncodingWorkspace) -> Int {
        let symbols = work.symbols
        var run = UnknownRun(self)
        var count = 0
        var place = 0
        while place < length {
            let size = UTF8Scalar.decode(word, place, length).length
            let id =
                size == 1
                ? byteIDs.base[Int(word[place])]
                : Int32(tokens.id(of: UnsafeBufferPointer(start: word + place, count: size)) ?? -1)
            if id >= 0 {
                count = run.flush(symbols, count)
                symbols[count] = UInt32(bitPattern: id)
                count += 1
            } else if unknown.usesBytes, (0..<size).allSatisfy({ fallbackIDs.base[Int(word[place + $0])] >= 0 }) {
                // What is unknown and before these bytes comes behind them: so do the files' own library.
                for byte in 0..<size {
                    symbols[count] = UInt32(bitPattern: fallbackIDs.base[Int(word[place + byte])])
                    count += 1
                }
            } else {
                count = run.add(symbols, count)
            }
            place += size
        }
        return run.flush(symbols, count)
    }
}

/// Characters without a token, one after another, until the next that has one.
private struct UnknownRun {
    private let id: Int32
    private let isFused: Bool
    private var isPending = false

    init(_ model: BPEModel) {
        id = model.unknownID
        isFused = model.unknown.isFused
    }

    /// One more; returns how many symbols there are.
    mutating func add(_ symbols: UnsafeMutablePointer<UInt32>, _ count: Int) -> Int {
        guard id >= 0 else { return count }
        let kept = isFused ? count : flush(symbols, count)
        isPending = true
        return kept
    }

    /// Writes what is pending; returns how many symbols there are.
    @inline(__always)
    mutating func flush(_ symbols: UnsafeMutablePointer<UInt32>, _ count: Int) -> Int {
        guard isPending else { return count }
        isPending = false
        symbols[count] = UInt32(bitPattern: id)
        return count + 1
    }
}
