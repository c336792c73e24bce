import ApusTensor
import Testing

@testable import ApusTraining

/// When the host waits for a device that takes its time.
@Suite struct StepQueueTests {
    /// A device that ends steps in their order, and notes when it is given one and when somebody waits.
    private final class Device {
        /// The last step that is over.
        var done = 0
        /// The last step that was enqueued.
        var given = 0
        /// Steps that were waited for, and how many had been enqueued by then.
        var waits: [(step: Int, given: Int)] = []
        struct Lost: Error {}
        var isLost = false
    }

    private struct Work: WorkUnderWay {
        let step: Int
        let device: Device

        var isComplete: Bool { device.done >= step }

        func wait() throws {
            if device.isLost { throw Device.Lost() }
            guard !isComplete else { return }
            device.waits.append((step, device.given))
            device.done = step
        }
    }

    private let device = Device()

    /// Takes a step; returns those that were seen to be over.
    private func take(_ queue: inout StepQueue<Work>, isShown: Bool = false) throws -> [Int] {
        queue.begin()
        device.given += 1
        queue.append(Work(step: device.given, device: device))
        try queue.advance(isShown: isShown)
        return steps(&queue)
    }

    private func steps(_ queue: inout StepQueue<Work>) -> [Int] {
        var steps: [Int] = []
        while let next = queue.next() {
            steps.append(next.step.step)
            #expect(next.seconds > 0)
        }
        return steps
    }

    @Test func `a step waits for nothing between two that are shown, and those for one wait, a step late`() throws {
        var queue = StepQueue<Work>()
        var seen: [Int] = []
        for step in 1...60 { seen += try take(&queue, isShown: step % 10 == 0) }
        #expect(device.waits.map(\.step) == [9, 19, 29, 39, 49, 59])
        #expect(device.waits.allSatisfy { $0.given == $0.step + 1 }, "the next step is enqueued before")
        #expect(seen == Array(1...59))
        try queue.drain()
        #expect(device.waits.last?.step == 60 && steps(&queue) == [60])
    }

    @Test func `without steps to show the host is held back all the same`() throws {
        var queue = StepQueue<Work>()
        for step in 1...60 {
            _ = try take(&queue)
            #expect(device.given - device.done <= StepQueue<Work>.mostAhead, "\(step)")
        }
        #expect(device.waits.count == 60 / StepQueue<Work>.mostAhead)
    }

    @Test func `steps that are over are found without a wait`() throws {
        var queue = StepQueue<Work>()
        for step in 1...40 {
            device.done = step
            #expect(try take(&queue, isShown: true) == [step])
        }
        #expect(device.waits.isEmpty)
    }

    @Test(arguments: [0, 1, 5])
    func `ranks look at the same steps at the same points, however far their devices are`(lead: Int) throws {
        var queue = StepQueue<Work>(ranks: 2, device: .cuda(0))
        for step in 1...20 {
            // Up to the newest one, up to one before, or none without a wait.
            device.done = max(device.done, step - lead)
            #expect(try take(&queue, isShown: step % 4 == 0) == (step > 2 ? [step - 2] : []))
        }
        #expect(device.waits.isEmpty == (lead < 3))
        try queue.drain()
        #expect(steps(&queue) == [19, 20])
    }

    @Test func `one rank, and ranks on processors, take what is there`() {
        #expect(StepQueue<Work>(ranks: 2, device: .cuda(1)).isCommon)
        #expect(!StepQueue<Work>(ranks: 1, device: .cuda(0)).isCommon)
        #expect(!StepQueue<Work>(ranks: 4, device: .cpu).isCommon)
    }

    @Test func `a failure of the device ends the steps that wait for it`() throws {
        var queue = StepQueue<Work>()
        for _ in 1...3 { _ = try take(&queue) }
        device.isLost = true
        #expect(throws: Device.Lost.self) { try queue.drain() }
        queue.removeAll()
        try queue.drain()
        #expect(steps(&queue).isEmpty)
    }
}
