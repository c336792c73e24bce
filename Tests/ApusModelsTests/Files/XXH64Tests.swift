import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusModels

@Suite struct XXH64Tests {
    private func checksum(_ bytes: [UInt8]) -> UInt64 { bytes.withUnsafeBytes { XXH64.checksum($0) } }

    /// Values of the reference implementation (the `xxhash` package) for byte i = (7 i + 3) mod 256.
    static let reference: [(Int, UInt64)] = [
        (0, 0xEF46_DB37_51D8_E999),
        (1, 0x1F25_C8D0_BC1F_4BB6),
        (3, 0x31D2_363F_52E5_64C9),
        (4, 0x9BB6_4B7D_66EE_9FDA),
        (5, 0xC760_8EFD_DB70_51FE),
        (7, 0x9A7B_1499_59CE_60D8),
        (8, 0xDAB9_9D95_C6F9_0092),
        (12, 0xD52E_4078_33AF_5133),
        (15, 0x1B47_CB82_43CC_8E32),
        (31, 0xA2AA_5F33_CC4A_6119),
        (32, 0x23C3_C17E_F790_FD97),
        (33, 0x50A7_CFC7_BA58_8784),
        (63, 0x5E3E_54B4_31C7_493C),
        (64, 0x0EB6_4B3E_F6EE_B01F),
        (100, 0xA61F_8D4C_170F_E531),
        (1_000, 0x5F23_5FA0_33F1_A3FB),
        (1_048_576, 0x9895_60CE_899D_661B),
    ]

    @Test(arguments: reference)
    func agreesWithTheReference(_ count: Int, _ expected: UInt64) {
        #expect(checksum((0..<count).map { UInt8(truncatingIfNeeded: 7 * $0 + 3) }) == expected)
    }

    @Test func agreesOnText() {
        #expect(checksum(Array("abc".utf8)) == 0x44BC_2CF5_AD77_0999)
    }

    @Test func cutsDoNotMatter() {
        var random = SeededGenerator(seed: 1)
        let bytes = (0..<1_000).map { _ in UInt8.random(in: 0...255, using: &random) }
        for _ in 0..<300 {
            var hash = XXH64()
            var at = 0
            while at < bytes.count {
                let next = min(bytes.count, at + Int.random(in: 0...90, using: &random))
                bytes[at..<next].withUnsafeBytes { hash.update($0) }
                at = next
            }
            #expect(hash.value == checksum(bytes))
        }
    }

    @Test func everyFlippedBitAndEveryTruncationIsSeen() {
        let bytes = (0..<777).map { UInt8(truncatingIfNeeded: $0 &* $0) }
        var seen: Set<UInt64> = [checksum(bytes)]
        for bit in 0..<(bytes.count * 8) {
            var damaged = bytes
            damaged[bit / 8] ^= 1 << (bit % 8)
            #expect(seen.insert(checksum(damaged)).inserted)
        }
        for count in 0..<bytes.count { #expect(seen.insert(checksum(Array(bytes[..<count]))).inserted) }
        // Zeros at the end change nothing but the length.
        for extra in 1...64 { #expect(seen.insert(checksum(bytes + Array(repeating: 0, count: extra))).inserted) }
    }

    @Test func hexadecimalKeepsLeadingZeros() {
        #expect(XXH64.hex(0x0123) == "0000000000000123" && XXH64.hex(.max) == "ffffffffffffffff")
    }
}
