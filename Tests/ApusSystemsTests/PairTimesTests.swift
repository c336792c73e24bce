import ApusExperts
import Testing

@testable import ApusSystems

/// What a shortcut hides, in numbers by hand.
struct PairTimesTests {
    private static let even = PairTimes(attention: 2, dense: 3, shared: 1, experts: 4, dispatch: 3, combine: 3)

    @Test func `windows are those of the paper`() {
        // T_attention + T_shared; with T_dense; with another T_attention.
        #expect(Self.even.window(.output).reduce(0, +) == 3)
        #expect(Self.even.window(.attention).reduce(0, +) == 6)
        #expect(Self.even.window(.input).reduce(0, +) == 8)
    }

    @Test(arguments: [(.output, 3.0), (.attention, 0), (.input, 0)] as [(ShortcutConfiguration.Position, Double)])
    func `what is exposed`(_ position: ShortcutConfiguration.Position, _ expected: Double) {
        let slot = PairTimes.slot(position)
        #expect(Self.even.exposed(position, slot: slot) == expected)
        #expect(Self.even.total(position, slot: slot) == 2 * 2 + 3 + 1 + 4 + expected)
        #expect(Self.even.sumOfParts == 18)
    }

    @Test func `exchanges within the window cost nothing, whatever the position`() {
        for position in ShortcutConfiguration.Position.allCases {
            var times = Self.even
            let window = times.window(position)
            times.dispatch = window[..<PairTimes.slot(position)].reduce(0, +)
            times.combine = window[PairTimes.slot(position)...].reduce(0, +)
            #expect(times.exposed(position, slot: PairTimes.slot(position)) == 0)
            #expect(times.searchedSlot(position) == PairTimes.slot(position))
            times.combine += 1
            #expect(times.exposed(position, slot: PairTimes.slot(position)) == 1)
        }
    }

    @Test func `a search finds another place where exchanges are uneven`() {
        var times = Self.even
        (times.dispatch, times.combine) = (5, 1)
        // After the dense layer and attention: 5 before, 1 after.
        #expect(times.searchedSlot(.attention) == 2 && times.exposed(.attention, slot: 2) == 0)
        #expect(times.exposed(.attention, slot: PairTimes.slot(.attention)) == 2)
        // The first of equals: before everything, when nothing has to travel there.
        (times.dispatch, times.combine) = (0, 6)
        #expect(times.searchedSlot(.attention) == 0)
    }
}
