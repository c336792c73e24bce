import ApusTestSupport
import Testing

@testable import ApusTraining

/// What TensorBoard's own reader cannot tell: the exact bytes, and the names of files.
@Suite struct EventFileTests {
    /// RFC 3720, section B.4, and the usual check value.
    static let sums: [(bytes: [UInt8], checksum: UInt32)] = [
        (Array(repeating: 0, count: 32), 0x8A91_36AA), (Array(repeating: 0xFF, count: 32), 0x62A8_AB43),
        (Array(0..<32), 0x46DD_794E), (Array("123456789".utf8), 0xE306_9283), ([], 0),
    ]

    @Test(arguments: sums)
    func `checksums are CRC-32C`(_ bytes: [UInt8], _ checksum: UInt32) {
        #expect(CRC32C.checksum(bytes) == checksum)
        let turned = checksum >> 15 | checksum << 17
        #expect(CRC32C.masked(bytes) == turned &+ 0xA282_EAD8)
    }

    @Test func `a record is length, its checksum, content, its checksum`() {
        let record = EventFile.record([1, 2, 3])
        #expect(record.count == 8 + 4 + 3 + 4)
        #expect(Array(record[..<8]) == [3, 0, 0, 0, 0, 0, 0, 0])
        #expect(Array(record[12..<15]) == [1, 2, 3])
        let sums = [CRC32C.masked(record[..<8]), CRC32C.masked([1, 2, 3] as [UInt8])]
        for (sum, start) in zip(sums, [8, 15]) {
            let found = (0..<4).reduce(UInt32(0)) { $0 | UInt32(record[start + $1]) << (8 * $1) }
            #expect(found == sum)
        }
    }

    @Test func `fields are written in the wire format of protocol buffers`() {
        var writer = ProtobufWriter()
        writer.integer(2, 300)
        writer.integer(2, -1)
        writer.string(3, "ab")
        writer.float(2, 1)
        writer.double(1, 1)
        writer.doubles(6, [1])
        writer.message(31) { $0.integer(1, 1) }
        let one: [UInt8] = [0, 0, 0, 0, 0, 0, 0xF0, 0x3F]
        var expected: [UInt8] = [0x10, 0xAC, 0x02, 0x10] + Array(repeating: 0xFF, count: 9) + [0x01]
        expected += [0x1A, 2, 0x61, 0x62, 0x15, 0, 0, 0x80, 0x3F, 0x09] + one
        expected += [0x32, 8] + one + [0xFA, 0x01, 2, 0x08, 1]
        #expect(writer.bytes == expected)
    }

    @Test func `a later file has a later name, also when the clock was set back`() throws {
        let scratch = try ScratchFolder()
        let folder = "\(scratch.path)/run/tensorboard"
        for step in 0..<3 { _ = try EventFile(folder: folder, afterStep: step, of: 5) }
        #expect(Set(folderNames(folder)).count == 3)
        try scratch.write("run/tensorboard/events.out.tfevents.9000000000.apus", [])
        let late = try EventFile(folder: folder, afterStep: 3, of: 5)
        #expect(late.path == "\(folder)/events.out.tfevents.9000000001.apus")
        #expect(folderNames(folder).last.map { "\(folder)/\($0)" } == late.path)
    }

    @Test func `values that are missing or no number are left out`() {
        var metrics = StepMetrics(
            step: 1, loss: .nan, balanceLoss: nil, zLoss: 0.5, droppedFraction: 0, gradientNorm: .infinity,
            learningRate: 1e-3, tokensPerSecond: 10, mfu: 0.5, peakBytes: 7, stepSeconds: 1, heldOutLoss: nil,
            expertShares: [(3, [0.75, 0.25]), (11, [.nan, 1])])
        let tags = Set(metrics.eventValues(includesBars: true).map(\.tag))
        #expect(!tags.contains("loss/loss") && !tags.contains("loss/balance_loss"))
        #expect(!tags.contains("optimizer/grad_norm"))
        #expect(tags.isSuperset(of: ["loss/z_loss", "peak_to_mean/layer_03", "expert_share_percent/layer_03"]))
        #expect(!tags.contains("expert_share_percent/layer_11"))
        metrics.heldOutLoss = 2
        #expect(metrics.eventValues(includesBars: false).map(\.tag).contains("loss/held_out_loss"))
    }

    @Test(arguments: [
        ([0.25, 0.25, 0.25, 0.25], 1.0, 1.0, 0), ([1, 0, 0, 0], 4, 0, 3), ([0.5, 0.5, 0, 0], 2, 0.5, 2), ([1], 1, 1, 0),
    ])
    func `the shape of a load`(_ shares: [Double], _ peak: Double, _ evenness: Double, _ dead: Int) {
        let shape = LoadShape(shares)
        #expect(shape.peakToMean == peak && abs(shape.evenness - evenness) < 1e-12 && shape.deadExperts == dead)
    }
}
