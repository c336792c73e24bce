package import ApusTensor

/// Work that was given to a device.
package protocol WorkUnderWay {
    /// Whether it is over.
    var isComplete: Bool { get }
    /// Blocks until it is over.
    func wait() throws
}

/// Steps that a device was given, and when the host looks at what they came to.
///
/// The host runs ahead of the device, so that the device always has something to do. It never waits for the step that it
/// has just enqueued. Steps that are over are found by asking, which is no wait. A wait comes at a step whose numbers are
/// to be shown, and after ``mostAhead`` steps (fewer where they are slow, so that the host is ``mostSecondsAhead`` ahead
/// at most): one, for the step before the newest, which ends all before it. A step between those waits for nothing. On
/// the CPU every step is over when it is appended.
///
/// Ranks of one run must look at the same steps at the same points, whichever device is ahead: what is done about a step's
/// numbers is done by all of them together. A *common* queue therefore gives each step ``mostCommonAhead`` steps late, no
/// sooner where it is over or shown.
package struct StepQueue<Step: WorkUnderWay> {
    /// Steps that the host may be ahead of the device.
    package static var mostAhead: Int { 16 }
    /// Seconds of work that the host may be ahead of the device.
    package static var mostSecondsAhead: Double { 2 }
    /// Steps that the hosts of several ranks are ahead of what they look at.
    package static var mostCommonAhead: Int { 2 }

    /// Whether other ranks have a queue of the same steps, on devices that run behind their hosts.
    package let isCommon: Bool
    private var underWay: [Step] = []
    private var over: [(step: Step, seconds: Double)] = []
    private var mark = ContinuousClock.now
    private var secondsPerStep = 0.0
    /// Whether steps that are over are left until somebody must wait for them, as a slow device would have it: for tests.
    package var looksLate = false

    /// An empty queue, of one rank or of as many as take the steps together, on `device` each.
    package init(ranks: Int = 1, device: Device = .cpu) { isCommon = ranks > 1 && device != .cpu }

    /// Starts the clock of the next step; it runs already while others are under way.
    package mutating func begin() {
        if underWay.isEmpty { mark = ContinuousClock.now }
    }

    /// Adds a step that was enqueued behind the others.
    package mutating func append(_ step: Step) { underWay.append(step) }

    /// Notes the steps that are over; waits for the step before the newest if the newest `isShown` or the host is too far
    /// ahead. A common queue waits for the step ``mostCommonAhead`` before the newest.
    package mutating func advance(isShown: Bool) throws {
        if isCommon { return try settle(leaving: Self.mostCommonAhead) }
        let bound = secondsPerStep > 0 ? Self.mostSecondsAhead / secondsPerStep : Double(Self.mostAhead)
        let most = max(1, min(Self.mostAhead, Int(min(bound, Double(Self.mostAhead)))))
        try settle(leaving: isShown || underWay.count > most ? 1 : underWay.count)
    }

    /// Waits until every step is over.
    package mutating func drain() throws { try settle(leaving: 0) }

    /// The oldest step that is over, and its seconds: steps that were seen to be over together share the time evenly.
    package mutating func next() -> (step: Step, seconds: Double)? { over.isEmpty ? nil : over.removeFirst() }

    /// Forgets all steps.
    package mutating func removeAll() {
        underWay = []
        over = []
    }

    private mutating func settle(leaving most: Int) throws {
        let needed = max(underWay.count - most, 0)
        // They end in order: the last of them ends all before it.
        if needed > 0 { try underWay[needed - 1].wait() }
        let count = looksLate || isCommon ? needed : underWay.prefix { $0.isComplete }.count
        guard count > 0 else { return }
        let now = ContinuousClock.now
        secondsPerStep = (now - mark).seconds / Double(count)
        mark = now
        over += underWay.prefix(count).map { ($0, secondsPerStep) }
        underWay.removeFirst(count)
    }
}
