import ApusTensor
import Testing

@testable import ApusCUDA

@Suite struct `Attention is given to cuDNN` {
    private func facts(_ change: (inout AttentionFacts) -> Void = { _ in }) -> AttentionFacts {
        var facts = AttentionFacts(
            capability: LibraryVersion(9, 0), isBatchInvariant: false, isRecording: false, keepsSums: true,
            isBF16: true, areKeysInBlocks: false, isCausal: true, window: 0, hasFirstKeys: false,
            queryLengths: .init(sequences: 3, length: 333), keyLengths: .init(sequences: 3, length: 333), tokens: 999,
            keyTokens: 999, queryHeads: 8, keyHeads: 2,
            width: 128, queryStride: 1536, keyStride: 1536, valueStride: 1536, outStride: 1024, gradients: nil,
            addresses: [4096, 4096 + 2048, 4096 + 2560])
        change(&facts)
        return facts
    }

    private func reason(_ change: (inout AttentionFacts) -> Void) -> AttentionEngine.Reason? {
        if case .own(let reason) = AttentionEngine(facts(change)) { reason } else { nil }
    }

    @Test func `when sequences have one length, with the strides as they are`() {
        #expect(
            AttentionEngine(facts())
                == .fused(
                    FusedShape(
                        sequences: 3, queryHeads: 8, keyHeads: 2, queryLength: 333, keyLength: 333, width: 128,
                        isCausal: true, queryStride: 1536, keyStride: 1536, valueStride: 1536, outStride: 1024,
                        logSumExpStride: 8, gradients: nil)))
        #expect(reason { $0.width = 64 } == nil)
    }

    @Test func `also without a mask, over more or fewer keys`() {
        let change = { (facts: inout AttentionFacts) in
            facts.isCausal = false
            facts.keyLengths = .init(sequences: 3, length: 100)
            facts.keyTokens = 300
        }
        #expect(reason(change) == nil)
        #expect(
            reason {
                change(&$0)
                $0.isCausal = true
            } == .unevenCausal)
    }

    @Test func `but not what depends on the batch, or on something that it does not take`() {
        #expect(reason { $0.isBatchInvariant = true } == .batchInvariant)
        #expect(reason { $0.isRecording = true } == .recorded)
        #expect(reason { $0.keepsSums = false } == .forwardOnly)
        #expect(reason { $0.capability = LibraryVersion(8, 0) } == .device)
        #expect(reason { $0.isBF16 = false } == .elementType)
        #expect(reason { $0.areKeysInBlocks = true } == .blocks)
        #expect(reason { $0.window = 16 } == .partlySeen)
        #expect(reason { $0.hasFirstKeys = true } == .partlySeen)
        #expect(reason { $0.width = 96 } == .width)
    }

    @Test func `but not when lengths differ, are unknown or do not cover the tokens`() {
        #expect(reason { $0.queryLengths = nil } == .lengths)
        #expect(reason { $0.keyLengths = nil } == .lengths)
        #expect(reason { $0.keyLengths = .init(sequences: 9, length: 111) } == .lengths)
        #expect(reason { $0.tokens = 1000 } == .lengths)
        #expect(
            reason {
                $0.queryLengths = .init(sequences: 111, length: 9)
                $0.keyLengths = $0.queryLengths
            } == .short)
    }

    @Test func `but not when rows are not aligned`() {
        #expect(reason { $0.keyStride = 1532 } == .alignment)
        #expect(reason { $0.addresses[2] += 8 } == .alignment)
        #expect(reason { $0.gradients = .init(out: 1024, query: 1536, key: 1536, value: 1537) } == .alignment)
    }
}

@Suite struct `A backward pass in parts` {
    private func shape(_ sequences: Int, _ heads: (Int, Int), _ length: Int) -> FusedShape {
        FusedShape(
            sequences: sequences, queryHeads: heads.0, keyHeads: heads.1, queryLength: length, keyLength: length,
            width: 128, isCausal: true, queryStride: 6144, keyStride: 6144, valueStride: 6144, outStride: 2048,
            logSumExpStride: heads.0, gradients: .init(out: 2048, query: 6144, key: 6144, value: 6144))
    }

    @Test(
        arguments: [
            (8, 16, 16, 2048, 4, 16, 16), (1, 32, 32, 8192, 1, 4, 4), (3, 8, 2, 333, 3, 8, 2),
            (6, 16, 4, 4096, 1, 8, 2), (7, 4, 4, 2048, 7, 4, 4),
        ]
    ) func `is as large as its memory allows`(
        sequences: Int, queryHeads: Int, keyHeads: Int, length: Int, partSequences: Int, partQueries: Int, partKeys: Int
    ) throws {
        let whole = shape(sequences, (queryHeads, keyHeads), length)
        let part = try #require(whole.part(within: 512 << 20))
        #expect(part.deterministicBytes <= 512 << 20)
        #expect((part.sequences, part.queryHeads, part.keyHeads) == (partSequences, partQueries, partKeys))
        // Rows lie where they did.
        #expect(part.logSumExpStride == queryHeads && part.queryStride == whole.queryStride)
    }

    @Test func `covers every sequence and head once`() throws {
        let whole = shape(2, (32, 8), 4096)
        let part = try #require(whole.part(within: 300 << 20))
        #expect((part.sequences, part.queryHeads, part.keyHeads) == (1, 8, 2))
        let begins = whole.parts(like: part)
        #expect(begins.map(\.sequence) == [0, 0, 0, 0, 1, 1, 1, 1])
        #expect(begins.map(\.keyHead) == [0, 2, 4, 6, 0, 2, 4, 6])
        #expect(begins.map(\.queryHead) == [0, 8, 16, 24, 0, 8, 16, 24])
    }

    @Test func `is not possible when not even one head fits, or heads would not be aligned`() {
        #expect(shape(1, (16, 16), 32_768).part(within: 512 << 20) == nil)
        // 50 of these 100 would fit, but the log-sum-exp of a second half would begin off its 16 bytes.
        let odd = shape(100, (3, 3), 1001)
        #expect(odd.part(within: odd.deterministicBytes / 2 + 1)?.sequences == 20)
        // Seven heads share a key head: a part of one key head would begin within 16 bytes of log-sum-exps.
        #expect(shape(1, (14, 2), 4096).part(within: 300 << 20) == nil)
    }
}
