import Testing

@testable import ApusParallel

/// The groups that DeepSpeed makes for the same numbers, rank for rank.
struct WorkedExampleTests {
    @Test
    func `sixteen ranks, tensor 2, expert 4`() throws {
        let layout = try Layout.of(16, tensor: 2, expert: 4)
        #expect(
            layout.groups(.tensor)
                == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11], [12, 13], [14, 15]])
        #expect(layout.groups(.data) == [[0, 2, 4, 6, 8, 10, 12, 14], [1, 3, 5, 7, 9, 11, 13, 15]])
        #expect(
            Set(layout.groups(.expert(degree: 4)))
                == [[0, 2, 4, 6], [8, 10, 12, 14], [1, 3, 5, 7], [9, 11, 13, 15]])
        #expect(
            Set(layout.groups(.expertData(degree: 4)))
                == [[0, 8], [2, 10], [4, 12], [6, 14], [1, 9], [3, 11], [5, 13], [7, 15]])
    }

    @Test
    func `sixteen ranks without tensor parallelism, expert 2`() throws {
        let layout = try Layout.of(16, expert: 2)
        #expect(layout.groups(.data) == [Array(0..<16)])
        #expect(layout.groups(.expert(degree: 2)) == (0..<8).map { [2 * $0, 2 * $0 + 1] })
        #expect(
            layout.groups(.expertData(degree: 2))
                == [[0, 2, 4, 6, 8, 10, 12, 14], [1, 3, 5, 7, 9, 11, 13, 15]])
    }

    @Test
    func `data before expert strides expert groups over the data group`() throws {
        let plain = try Layout.of(16, expert: 2, order: .dataBeforeExpert)
        #expect(plain.groups(.expert(degree: 2)) == (0..<8).map { [$0, $0 + 8] })
        #expect(plain.groups(.expertData(degree: 2)) == [Array(0..<8), Array(8..<16)])

        let tensor = try Layout.of(16, tensor: 2, expert: 4, order: .dataBeforeExpert)
        #expect(
            Set(tensor.groups(.expert(degree: 4)))
                == [[0, 4, 8, 12], [2, 6, 10, 14], [1, 5, 9, 13], [3, 7, 11, 15]])
        #expect(
            Set(tensor.groups(.expertData(degree: 4)))
                == [[0, 2], [4, 6], [8, 10], [12, 14], [1, 3], [5, 7], [9, 11], [13, 15]])
        #expect(tensor.groups(.data) == [[0, 2, 4, 6, 8, 10, 12, 14], [1, 3, 5, 7, 9, 11, 13, 15]])
    }

    @Test
    func `without expert tensor parallelism the experts' grid is the whole world`() throws {
        let layout = try Layout.of(16, tensor: 2, expert: 4, expertTensor: false)
        #expect(layout.groups(.tensor).count == 8)
        #expect(layout.groups(.data) == [[0, 2, 4, 6, 8, 10, 12, 14], [1, 3, 5, 7, 9, 11, 13, 15]])
        #expect(
            layout.groups(.expert(degree: 4)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]])
        #expect(
            layout.groups(.expertData(degree: 4)) == [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]])
        // Twice the data degree: more than any layout with expert tensor parallelism could have.
        #expect(try Layout.of(16, tensor: 2, expert: 16, expertTensor: false).groups(.expert(degree: 16)).count == 1)
    }

    @Test
    func `the paper's layout has as many ranks in an expert group as experts`() throws {
        // Gd_exp = Gd_non / E: 128 ranks, tensor 4, 16 experts leave two copies of each expert.
        let layout = try LayoutConfiguration(tensor: 4, expert: .uniform(16)).layout(
            ranks: 128, for: Workload(heads: 32, vocabulary: 51200, layers: [.experts(16, width: 16384)]))
        #expect(layout.data == 32)
        #expect(layout.size(of: .expertData(degree: 16)) == 2)
        #expect(layout.group(.expert(degree: 16), of: 65) == (0..<16).map { 65 + 4 * $0 })
    }

    @Test
    func `a rank's coordinates are its places in its groups`() throws {
        let place = try Layout.of(16, tensor: 2, expert: 4).place(of: 13)
        #expect((place.tensor, place.data) == (1, 6))
        #expect((place.expert(degree: 4), place.expertData(degree: 4)) == (2, 1))
        // Two at a time, eight data ranks: the seventh of each sixteen in a row.
        #expect(BatchShare(place, batch: 32, microBatch: 2).passes == [12..<14, 28..<30])
    }

    @Test
    func `groups are named after their degree`() throws {
        let layout = try LayoutConfiguration(tensor: 2, expert: .perLayer([4, 1, 2, 4])).layout(ranks: 16)
        #expect(
            layout.groupKinds.map(\.name)
                == [
                    "tensor", "data", "expert1", "expert-data1", "expert2", "expert-data2", "expert4", "expert-data4",
                ])
        #expect((0..<4).map(layout.expertDegree) == [4, 1, 2, 4])
    }
}
