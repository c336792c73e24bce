extension CollectiveLedger {
    /// How often, and how much.
    public struct Count: Sendable, Equatable {
        /// Calls.
        public var calls: Int
        /// The sum of ``CollectiveOperation/byteCount``.
        public var bytes: Int

        /// A count.
        public init(calls: Int = 0, bytes: Int = 0) {
            self.calls = calls
            self.bytes = bytes
        }

        /// Both added.
        public static func + (left: Count, right: Count) -> Count {
            Count(calls: left.calls + right.calls, bytes: left.bytes + right.bytes)
        }

        /// Adds both.
        public static func += (left: inout Count, right: Count) { left = left + right }
    }

    /// How often, how much, and for how long.
    ///
    /// An operation's time runs from its start to its end: to the moment at which the implementation announces that the
    /// output is complete, whoever looks and when. Of that time, *exposed* is what held the caller up: the time in which
    /// ``Collective/start(_:after:layer:)`` itself was at work, and that from the first wait that had to wait to the end. A
    /// wait is one for the operation's event, also by another op that reads the output. Two threads that wait are one
    /// wait, and a start that first waits for the output of an earlier operation is that one's time. Exposed time is never more
    /// than the time; the rest was hidden behind other work.
    ///
    /// A device's work announces nothing to the host. Where the device takes its time (`TimedWork`), that is the time, from
    /// when the device came to it, known when it is over; which other work of the device it held up is not known, and nor
    /// is then the exposed time. Elsewhere it has time where the host waits for it, up to the end of that wait.
    public struct Cost: Sendable, Equatable {
        /// Calls and bytes.
        public var count = Count()
        /// Calls whose end is known.
        public private(set) var ended = 0
        private var nanoseconds = 0
        private var held = 0
        private var isExposureKnown = true

        /// Nothing so far.
        public init() {}

        /// Seconds from start to end, of all calls that have ended; those of calls under way together count each.
        public var seconds: Double { Double(nanoseconds) * 1e-9 }
        /// The part of ``seconds`` that held the caller up; `nil` where a device's operations are among the calls, of which
        /// nobody knows.
        public var exposedSeconds: Double? { isExposureKnown ? Double(held) * 1e-9 : nil }

        /// All added.
        public static func + (left: Cost, right: Cost) -> Cost {
            var sum = left
            sum.count += right.count
            sum.ended += right.ended
            sum.nanoseconds += right.nanoseconds
            sum.held += right.held
            sum.isExposureKnown = left.isExposureKnown && right.isExposureKnown
            return sum
        }

        /// Adds the time of a call, of which the nanoseconds `held` held the caller up.
        mutating func add(nanoseconds: Int, held: Int) {
            ended += 1
            self.nanoseconds += nanoseconds
            self.held += held
        }

        /// Takes note that one of the calls is a device's.
        mutating func noteDevice() { isExposureKnown = false }
    }
}
