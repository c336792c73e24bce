/// One record of an event file: what TensorBoard is told at one time.
///
/// Field numbers are those of TensorFlow's `event.proto` and `summary.proto`.
struct Event {
    /// What an event says.
    enum Content {
        /// The first record of a file: its format's version.
        case version
        /// A run begins, or begins again: what earlier files say of this step and later ones no longer counts.
        case start
        /// Values of the step, each with its tag.
        case values([(tag: String, value: Value)])
    }

    /// One value of a step.
    enum Value {
        /// A point of a curve.
        case scalar(Double)
        /// A bar for each of several places, from 0 on, each 1 wide.
        case bars([Double])
    }

    /// Seconds since 1970.
    let time: Double
    /// The step.
    let step: Int
    /// What is said.
    let content: Content

    /// The event as a protocol buffer.
    var bytes: [UInt8] {
        var event = ProtobufWriter()
        event.double(1, time)
        event.integer(2, step)
        switch content {
        case .version: event.string(3, "brain.Event:2")
        case .start: event.message(7) { $0.integer(1, 1) }
        case .values(let values):
            event.message(5) { summary in
                for (tag, value) in values {
                    summary.message(1) {
                        $0.string(1, tag)
                        value.write(to: &$0)
                    }
                }
            }
        }
        return event.bytes
    }
}

extension Event.Value {
    fileprivate func write(to value: inout ProtobufWriter) {
        switch self {
        case .scalar(let number): value.float(2, Float(number))
        case .bars(let heights):
            value.message(5) { histogram in
                histogram.double(1, 0)
                histogram.double(2, Double(heights.count))
                histogram.double(3, heights.reduce(0, +))
                histogram.double(4, heights.enumerated().reduce(0) { $0 + (Double($1.offset) + 0.5) * $1.element })
                histogram.double(
                    5,
                    heights.enumerated().reduce(0) { sum, bar in
                        let place = Double(bar.offset) + 0.5
                        return sum + place * place * bar.element
                    })
                histogram.doubles(6, (1...max(heights.count, 1)).map(Double.init))
                histogram.doubles(7, heights)
            }
        }
    }
}
