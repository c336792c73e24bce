import ApusKernels
import ApusTensor
import Synchronization
import Testing

@testable import ApusCUDA

// Shape letters: T tokens, Hq query heads, Hk key heads, H head width.

extension CUDATests {
    /// Kernels as chosen for less than the device has: the fake one is a Hopper.
    @Suite struct `Portable kernels` {
        init() {
            FakeDriver.reset()
            FakeCompiler.reset()
        }

        /// A launch as the fake driver notes it: `launch name (x, y, z) of (x, y), n bytes`.
        private struct Launch {
            let name: String
            let sharedBytes: Int

            init(_ call: String) {
                let words = call.split(separator: " ")
                name = String(words[1])
                sharedBytes = words.dropLast().last.flatMap { Int($0) } ?? .max
            }
        }

        /// All launches of the checks of `apus doctor`; nothing computes, so most checks fail.
        private func launches(_ limits: KernelLimits?) throws -> [Launch] {
            let backend = try FakeDriver.backend(limits: limits)
            _ = FakeDriver.takeCalls()
            for check in OpCheck.all { _ = try? check.run(on: backend) }
            return FakeDriver.takeCalls("launch").map(Launch.init)
        }

        @Test func `are the only ones that the checks launch`() throws {
            let portable = try launches(.portable)
            #expect(portable.allSatisfy { !$0.name.contains("sm90a") })
            // A kernel's own shared memory is beside what the launch asks for.
            let most = portable.map(\.sharedBytes).max() ?? 0
            #expect(most <= (99 << 10) - 512, "\(portable.first { $0.sharedBytes == most }?.name ?? "")")
            let names = Set(portable.map(\.name))
            for name in [
                "attention_bf16_64", "attention_bf16_128_compact", "attention_key_gradient_bf16_128_compact",
                "attention_query_gradient_bf16_128_compact", "attention_bf16_256_compact",
                "attention_key_gradient_bf16_256_compact", "attention_query_gradient_bf16_256_compact",
                "grouped_transposed_bf16_128", "grouped_bf16_128", "grouped_gradient_bf16_f32_128",
            ] { #expect(names.contains(name), "\(name)") }
            let own = try Set(launches(nil).map(\.name))
            #expect(own.contains("attention_sm90a_128") && own.contains("grouped_sm90a"))
            #expect(own.contains("attention_bf16_256") && own.allSatisfy { !$0.hasSuffix("_compact") })
        }

        /// Launches of attention, forward and backward, on a device of these limits.
        private func attention(
            _ dtype: DType, heads: (query: Int, key: Int), width: Int, _ limits: KernelLimits
        ) throws -> [String] {
            let backend = try FakeDriver.backend(limits: limits)
            let t = 300
            let q = try backend.empty(Shape(t, heads.query, width), dtype)
            let k = try backend.empty(Shape(t, heads.key, width), dtype)
            let starts = try backend.tensor([0, 100, 300] as [Int32], Shape(3))
            let kv = KVView(keys: k, values: k, layout: .contiguous(cumulativeLengths: starts))
            let sums = try backend.empty(Shape(t, heads.query), .f32)
            _ = FakeDriver.takeCalls()
            try backend.attention(
                q, cumulativeLengths: starts, kv: kv, mask: .causal, scale: 0.1, into: q, logSumExp: sums)
            try backend.attentionBackward(
                q, q: q, cumulativeLengths: starts, kv: kv, mask: .causal, scale: 0.1, out: q, logSumExp: sums, dq: q,
                dk: k, dv: k)
            return FakeDriver.takeCalls("launch").filter { !$0.contains("delta") }
                .map { String($0.dropFirst("launch attention_".count)) }
        }

        @Test func `for wide heads have the tiles that fit`() throws {
            #expect(
                try attention(.bf16, heads: (4, 2), width: 128, .portable) == [
                    "bf16_128_compact (7, 2, 1) of (256, 1), 98304 bytes",
                    "key_gradient_bf16_128_compact (5, 2, 1) of (256, 1), 100352 bytes",
                    "query_gradient_bf16_128_compact (7, 2, 1) of (256, 1), 98304 bytes",
                ])
            #expect(
                try attention(.bf16, heads: (4, 2), width: 136, .portable) == [
                    "bf16_256_compact (12, 2, 1) of (128, 1), 98304 bytes",
                    "key_gradient_bf16_256_compact (7, 2, 2) of (128, 1), 100352 bytes",
                    "query_gradient_bf16_256_compact (12, 2, 1) of (128, 1), 98304 bytes",
                ])
            // An A100 has room for the others up to 128.
            let a100 = KernelLimits(capability: LibraryVersion(8, 0), sharedMemory: 166_912)
            #expect(
                try attention(.bf16, heads: (4, 2), width: 128, a100) == [
                    "bf16_128 (7, 2, 1) of (128, 1), 104448 bytes",
                    "key_gradient_bf16_128 (5, 2, 1) of (256, 1), 141312 bytes",
                    "query_gradient_bf16_128 (7, 2, 1) of (256, 1), 139264 bytes",
                ])
            #expect(try attention(.bf16, heads: (4, 2), width: 256, a100).allSatisfy { $0.contains("_256_compact ") })
        }

        @Test func `in f32 own fewer rows where heads are wide`() throws {
            #expect(
                try attention(.f32, heads: (4, 2), width: 256, .portable) == [
                    "f32 (21, 2, 1) of (256, 1), 99328 bytes",
                    "key_gradient_f32 (21, 2, 1) of (128, 1), 99328 bytes",
                    "query_gradient_f32 (40, 2, 1) of (128, 1), 99328 bytes",
                ])
            let narrow = try attention(.f32, heads: (4, 2), width: 64, .portable)
            #expect(narrow.allSatisfy { $0.contains(" of (256, 1), ") })
        }

        @Test(arguments: [DType.f32, .bf16])
        func `take every width within 99 KB`(dtype: DType) throws {
            for width in 1...256 {
                for launch in try attention(dtype, heads: (2, 2), width: width, .portable) {
                    #expect(Launch("launch \(launch)").sharedBytes <= (99 << 10) - 512, "\(launch)")
                }
            }
        }

        @Test func `that do not fit are refused in words`() throws {
            #expect(throws: KernelLimitError.headsPerKeyHead(33, most: 32)) {
                try attention(.bf16, heads: (33, 1), width: 256, .portable)
            }
            #expect(throws: KernelLimitError.headWidth(264, most: 256)) {
                try attention(.bf16, heads: (1, 1), width: 264, .portable)
            }
            let backend = try FakeDriver.backend(limits: .portable)
            let launch = LaunchShape.blocks(1, sharedBytes: 101_377)
            #expect(throws: KernelLimitError.sharedMemory(kernel: "wide", bytes: 101_377, most: 101_376)) {
                try backend.launch("wide", launch, 1)
            }
            for error in [KernelLimitError.headWidth(300, most: 256), .headsPerKeyHead(33, most: 32)] {
                #expect(!"\(error)".contains("\n") && "\(error)".contains("at most"))
            }
        }
    }
}
