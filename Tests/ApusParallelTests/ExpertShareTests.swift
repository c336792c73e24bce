import Testing

@testable import ApusParallel

// Shape letters: F expert width, E experts.

/// Which experts, and which slices of them, ranks hold.
struct ExpertShareTests {
    @Test
    func `shares of experts are equal, and each knows its tokens' way`() throws {
        for (degree, experts) in [(1, 8), (4, 8), (8, 8), (8, 4), (6, 2), (5, 1)] {
            let shares = (0..<degree).map { ApusParallel.ExpertShare(place: $0, degree: degree, experts: experts) }
            #expect(Set(shares.map { [$0.experts.count, $0.slices] }).count == 1)
            for expert in 0..<experts {
                let holders = ApusParallel.ExpertShare.holders(of: expert, degree: degree, experts: experts)
                #expect(holders == shares.indices.filter { shares[$0].experts.contains(expert) })
                #expect(holders.map { shares[$0].slice } == Array(0..<max(degree / experts, 1)))
            }
        }
        // expert = place % E, slice = place / E
        let share = ApusParallel.ExpertShare(place: 6, degree: 8, experts: 4)
        #expect((share.experts, share.slice, share.slices) == (2..<3, 1, 2))
    }
}
