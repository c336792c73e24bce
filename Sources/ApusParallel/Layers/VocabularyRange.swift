import ApusCollectives

// Shape letters: T tokens, V vocabulary, N tensor-parallel ranks.

extension Collective {
    /// This rank's entries of a vocabulary: shares that differ by one at most, the whole without gaps.
    func ownShare(ofVocabulary entries: Int) -> Range<Int> { share(of: rank, ofVocabulary: entries) }

    /// The entries of `rank`.
    func share(of rank: Int, ofVocabulary entries: Int) -> Range<Int> {
        entries * rank / size..<entries * (rank + 1) / size
    }

    /// Who has `entry`.
    func owner(of entry: Int, inVocabulary entries: Int) -> Int { ((entry + 1) * size - 1) / entries }
}
