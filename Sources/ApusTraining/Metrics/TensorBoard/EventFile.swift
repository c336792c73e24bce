import ApusModels
import ApusTensor
import Glibc

/// A TensorBoard event file of a run: scalars of every step, and the expert loads of some.
///
/// Every start of a run writes a file of its own. TensorBoard reads those of a folder one after the other, in the order
/// of their names, and forgets what earlier ones say of steps from a start event's on: a resumed run goes on where its
/// checkpoint was.
///
/// Format: TFRecord. Each record is its length (8 bytes), the length's masked CRC-32C, the event, and the event's.
public final class EventFile {
    /// As many sets of bars as TensorBoard keeps of a tag.
    private static let barSteps = 500

    /// Where it is.
    public let path: String
    private let file: UnsafeMutablePointer<FILE>
    private let barsEvery: Int
    private let now: () -> Double

    /// A new file in `folder`, made if need be, for the steps after `step` of a run of `steps` steps.
    ///
    /// - Parameter now: seconds since 1970, for people; no order follows from them, and a clock may go back.
    /// - Throws: ``FileError``, ``MetricsFileError``.
    public init(
        folder: String, afterStep step: Int, of steps: Int, now: @escaping () -> Double = EventFile.wallTime
    ) throws {
        try RunFolder.create(folder)
        self.now = now
        path = "\(folder)/\(try EventFile.nextName(in: folder, now: now()))"
        barsEvery = max(1, (steps + EventFile.barSteps - 1) / EventFile.barSteps)
        guard let file = fopen(path, "wx") else { throw MetricsFileError(path: path, code: errno) }
        self.file = file
        try write(Event(time: now(), step: 0, content: .version))
        try write(Event(time: now(), step: step + 1, content: .start))
    }

    deinit { fclose(file) }

    /// Appends a step and hands it to the system, so that a kill does not lose it.
    ///
    /// - Throws: ``MetricsFileError``, for a full disk among others.
    public func append(_ metrics: StepMetrics) throws {
        let values = metrics.eventValues(includesBars: (metrics.step - 1) % barsEvery == 0)
        try write(Event(time: now(), step: metrics.step, content: .values(values)))
    }

    private func write(_ event: Event) throws {
        let record = EventFile.record(event.bytes)
        guard fwrite(record, 1, record.count, file) == record.count, fflush(file) == 0 else {
            throw MetricsFileError(path: path, code: errno)
        }
    }

    /// A record that holds `content`.
    static func record(_ content: [UInt8]) -> [UInt8] {
        let length = bytes(UInt64(content.count))
        return length + bytes(CRC32C.masked(length)) + content + bytes(CRC32C.masked(content))
    }

    private static func bytes(_ value: some FixedWidthInteger) -> [UInt8] {
        withUnsafeBytes(of: value.littleEndian) { Array($0) }
    }

    /// `events.out.tfevents.` and a time; later than every other in the folder, also when the clock was set back.
    private static func nextName(in folder: String, now: Double) throws -> String {
        let prefix = "events.out.tfevents."
        let times = try FolderTree.names(in: folder).compactMap { name in
            name.hasPrefix(prefix) ? Int(name.dropFirst(prefix.count).prefix { $0.isNumber }) : nil
        }
        let latest = times.max() ?? 0
        guard latest < Int.max else {
            throw FileError.alreadyExists(path: "\(folder)/\(prefix)\(latest)")
        }
        let time = max(Int(exactly: now.rounded(.down)) ?? 0, latest + 1)
        return "\(prefix)\(time).apus"
    }

    /// The wall clock.
    public static func wallTime() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
    }
}
