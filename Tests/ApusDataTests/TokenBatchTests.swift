import ApusTestSupport
import Testing

@testable import ApusData

@Suite struct TokenBatchTests {
    /// Documents of 3, 1, 6 and 2 tokens; the last token of each is 9.
    private let tokens: [Int32] = [0, 1, 9, 9, 4, 5, 6, 7, 8, 9, 2, 9]

    private func stream(masks: Bool) throws -> SequenceStream {
        let source = SequenceStream.Source(
            path: "t", tokens: MemoryTokens(tokens[...], documentEnds: [3, 4, 10, 12]))
        return try SequenceStream(
            [source], sequenceLength: 5, shuffleSeed: nil, masksDocuments: masks, part: "training")
    }

    @Test func `documents of a sequence see themselves alone`() throws {
        let batch = try stream(masks: true).sequences(0..<2)
        #expect(batch.inputs == Array(tokens[..<10]))
        #expect(batch.targets == [1, 9, -100, -100, 5, 6, 7, 8, 9, -100])
        // The third document goes on in the second sequence, which does not see its beginning.
        #expect(batch.documents?.positions == [0, 1, 2, 0, 0, 0, 1, 2, 3, 4])
        #expect(batch.documents?.firstKeys == [0, 0, 0, 3, 4, 0, 0, 0, 0, 0])
        #expect(batch.documents?[5..<8] == TokenBatch.Documents(positions: [0, 1, 2], firstKeys: [0, 0, 0]))
    }

    @Test func `without masks everything is seen and predicted`() throws {
        let batch = try stream(masks: false).sequences(0..<2)
        #expect(batch.documents == nil)
        #expect(batch.targets == Array(tokens[1..<11]))
    }

    @Test func `text files have documents too`() throws {
        let scratch = try ScratchFolder()
        try scratch.write("a.txt", text: "abc")
        try scratch.write("b.txt", text: "de")
        let corpus = try TextCorpus(path: scratch.path, vocabulary: ByteVocabulary())
        #expect(corpus.documentEnds == [4, 7])
        let (training, rest) = corpus.split(heldOut: 0.4)
        #expect(MemoryTokens(training, documentEnds: corpus.documentEnds).documentStarts(in: 0..<5) == [4])
        #expect(MemoryTokens(rest, documentEnds: corpus.documentEnds).documentStarts(in: 0..<2) == [2])
    }
}
