/// Learns merges from counted words: the most frequent pair becomes a token, again and again.
///
/// Counts are kept up to date from the words that a merge touches, so a merge costs what it changes. Ties go to the
/// pair of lowest ids, and an entry of the heap merges the words that it was made for: the same merges come out as of
/// the `tokenizers` library, where one text arises from two pairs too.
struct MergeLearner {
    /// Token texts in the byte alphabet.
    private(set) var tokens: TokenTable
    private var rules: [MergeRule] = []
    /// Symbols of all words; a merged word has fewer and leaves the rest of its place unused.
    private var symbols: [UInt32] = []
    private var starts: [Int32] = []
    private var lengths: [Int32] = []
    private let counts: [Int]
    private var pairs = PairCounts()
    private var heap = PairHeap()

    /// - Parameter tokens: the special tokens and the byte alphabet.
    init(_ words: WordCounts, tokens: TokenTable) {
        self.tokens = tokens
        counts = words.counts
        let bytes = (0..<256).map { UInt32(tokens.id(of: ByteAlphabet.text(of: [UInt8($0)])) ?? 0) }
        for word in 0..<words.count {
            starts.append(Int32(symbols.count))
            for byte in words[word] { symbols.append(bytes[Int(byte)]) }
            lengths.append(Int32(words[word].count))
        }
        countPairs()
    }

    private mutating func countPairs() {
        var words: [[Int32]] = []
        for word in starts.indices {
            let start = Int(starts[word])
            for place in start..<max(start, start + Int(lengths[word]) - 1) {
                let index = pairs.index(symbols[place], symbols[place + 1])
                if index == words.count { words.append([]) }
                pairs.counts[index] += counts[word]
                if words[index].last != Int32(word) { words[index].append(Int32(word)) }
            }
        }
        for index in words.indices { push(index, words[index]) }
    }

    private mutating func push(_ index: Int, _ words: [Int32]) {
        guard pairs.counts[index] > 0 else { return }
        heap.push(
            PairHeap.Entry(count: pairs.counts[index], pair: pairs.pairs[index], index: Int32(index), words: words))
    }

    /// Learns until there are `size` tokens, or no pair occurs `least` times.
    ///
    /// - Returns: the merges by rank.
    mutating func learn(size: Int, least: Int) -> [MergeRule] {
        while tokens.count < size, var top = heap.pop() {
            let count = pairs.counts[Int(top.index)]
            if top.count != count {
                top.count = count
                heap.push(top)
                continue
            }
            if count < max(1, least) { break }
            let left = UInt32(truncatingIfNeeded: top.pair >> 32)
            let right = UInt32(truncatingIfNeeded: top.pair)
            let result = token(left, right)
            rules.append(MergeRule(left: left, right: right, result: result))
            merge(left, right, result, top.words)
        }
        return lastOfEach(rules)
    }

    /// The id of two tokens' text together, which may be a token already.
    private mutating func token(_ left: UInt32, _ right: UInt32) -> UInt32 {
        let text = Array(tokens[Int(left)] ?? []) + (tokens[Int(right)] ?? [])
        if let known = tokens.id(of: text) { return UInt32(known) }
        let id = tokens.idEnd
        _ = tokens.insert(text, id: id)
        return UInt32(id)
    }

    private mutating func merge(_ left: UInt32, _ right: UInt32, _ result: UInt32, _ words: [Int32]) {
        var touched: [Int] = []
        var wordsOf: [Int: [Int32]] = [:]
        for word in words {
            let start = Int(starts[Int(word)])
            let count = counts[Int(word)]
            var end = start + Int(lengths[Int(word)])
            var place = start
            while place + 1 < end {
                guard symbols[place] == left, symbols[place + 1] == right else {
                    place += 1
                    continue
                }
                if place > start {
                    pairs.counts[pairs.index(symbols[place - 1], left)] -= count
                    add(symbols[place - 1], result, count, word, &touched, &wordsOf)
                }
                if place + 2 < end {
                    pairs.counts[pairs.index(right, symbols[place + 2])] -= count
                    add(result, symbols[place + 2], count, word, &touched, &wordsOf)
                }
                symbols[place] = result
                for later in place + 1..<end - 1 { symbols[later] = symbols[later + 1] }
                end -= 1
                place += 1
            }
            lengths[Int(word)] = Int32(end - start)
        }
        for index in touched { push(index, wordsOf[index] ?? []) }
    }

    private mutating func add(
        _ left: UInt32, _ right: UInt32, _ count: Int, _ word: Int32, _ touched: inout [Int],
        _ wordsOf: inout [Int: [Int32]]
    ) {
        let index = pairs.index(left, right)
        pairs.counts[index] += count
        if wordsOf[index] == nil { touched.append(index) }
        if wordsOf[index]?.last != word { wordsOf[index, default: []].append(word) }
    }

    /// Of merges of one pair the last is the one that counts.
    private func lastOfEach(_ rules: [MergeRule]) -> [MergeRule] {
        var seen: Set<UInt64> = []
        return rules.reversed().filter { seen.insert(UInt64($0.left) << 32 | UInt64($0.right)).inserted }.reversed()
    }
}
