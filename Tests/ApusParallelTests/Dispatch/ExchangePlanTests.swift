import ApusCollectives
import Testing

@testable import ApusParallel

/// The order of rows that arrive from several ranks and parts.
@Suite struct ExchangePlanTests {
    @Test func `rows of one source and expert after another`() {
        // Two sources, one part, two experts: the first sends 2 and 1 rows, the second none and 2.
        let plan = ExchangePlan(sent: [3, 4], received: [[[2, 1]], [[0, 2]]], part: 0)
        #expect(plan.splits.sent == [3, 4] && plan.splits.received == [3, 2])
        #expect(plan.bound == 5)
        #expect(plan.places == [0, 1, 2, 3, 4])
        #expect(plan.isInOrder && !plan.isEven)
        #expect(plan.offsets == [0, 2, 5])
    }

    @Test func `parts come between sources, and short parts leave places without rows`() {
        // Parts receive 3 and 2 rows, so the second buffer has one place that no row is in.
        let plan = ExchangePlan(sent: [1, 1], received: [[[1, 0], [1, 0]], [[1, 1], [0, 1]]], part: 1)
        #expect(plan.splits.received == [1, 1])
        #expect(plan.bound == 3)
        // Expert 0: source 0 part 0, source 0 part 1, source 1 part 0. Expert 1: source 1, both parts.
        #expect(plan.places == [0, 3, 1, 2, 4])
        #expect(plan.rows == [0, 2, 3, 1, 4, -1])
        #expect(plan.offsets == [0, 3, 5])
    }

    @Test func `no rows at all`() {
        let plan = ExchangePlan(sent: [0, 0], received: [[[0], [0]], [[0], [0]]], part: 0)
        #expect(plan.bound == 0 && plan.places.isEmpty && plan.isInOrder && plan.isEven)
        #expect(plan.offsets == [0, 0])
    }

    @Test(arguments: [(10, 3), (9, 3), (2, 4), (0, 2)])
    func `parts cover the rows once`(_ rows: Int, _ count: Int) {
        let parts = RowParts(rows: rows, parts: count)
        #expect((0..<count).flatMap { Array(parts[$0]) } == Array(0..<rows))
        #expect((0..<count).allSatisfy { parts[$0].count <= parts.length })
    }
}
