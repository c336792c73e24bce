import ApusTestSupport
import Foundation
import Testing

/// How often the host waits for a device that trains.
@Suite struct CLIStepWaitsTests {
    private static let hasDevice = access("/dev/nvidiactl", F_OK) == 0

    private func bench(_ device: String, _ more: String...) throws -> [String: Any] {
        let result = try CLI.run(
            [
                "bench", "train", "--device", device, "--preset", "tiny", "--sequence", "32", "--batch", "2",
                "--warmup",
                "3",
                "--steps", "48", "--json",
            ] + more)
        #expect(result.status == 0, "\(result.errors)")
        let report = try result.object()
        #expect((report["step_seconds"] as? [Double])?.count == 48)
        return report
    }

    @Test(.enabled(if: hasDevice, "no CUDA device"))
    func `steps on a GPU wait for nothing but the bound on how far the host is ahead`() throws {
        let waits = try #require(try bench("cuda")["host_waits_per_step"] as? Double)
        #expect(waits <= 4.0 / 48)
    }

    @Test(.enabled(if: hasDevice, "no CUDA device"))
    func `what a GPU does in a traced step adds up to the step, and none of it is faster than the GPU`() throws {
        let report = try bench("cuda", "--phases")
        let phases = try #require(report["phases"] as? [[String: Any]])
        let all = ["forward_seconds", "backward_seconds"].reduce(0) { sum, key in
            phases.reduce(sum) { $0 + ($1[key] as? Double ?? .nan) }
        }
        let step = try #require(report["traced_step_seconds"] as? Double)
        #expect(all > 0.7 * step && all <= step * (1 + 1e-9), "\(all) of \(step)")
        #expect(phases.allSatisfy { ($0["of_peak"] as? Double ?? .nan) <= 1 }, "\(phases)")
        #expect(try #require(report["host_enqueue_seconds"] as? Double) > 0)
        #expect(try #require(report["host_waits_per_step"] as? Double) <= 4.0 / 48, "a trace adds no wait")
    }

    @Test func `steps on the processor have nothing to wait for`() throws {
        let report = try bench("cpu")
        #expect(report["host_waits_per_step"] == nil && report["host_enqueue_seconds"] == nil)
    }
}
