/// An order of execution on a device: ops on one stream run one after another.
///
/// On the CPU a stream runs inline, so only work handed to another thread (a collective) completes later, and
/// announces that by an ``Event``.
public struct Stream: Sendable, Hashable {
    /// The device that executes.
    public let device: Device
    /// Which of the device's streams; 0 is the one that a training step computes on.
    public let index: Int

    /// A stream of a device.
    public init(device: Device, index: Int = 0) {
        self.device = device
        self.index = index
    }

    /// The CPU's compute stream.
    public static let cpu = Stream(device: .cpu)
}
