import ApusTestSupport
import Foundation
import Testing

/// A run's event files, read by TensorBoard's own readers.
@Suite struct TensorBoardTests {
    /// Reads a folder of event files: scalars as TensorBoard's event accumulator has them, and expert loads as its
    /// server turns them into histograms; and the metrics of each step, numbers rounded to the floats that a scalar is. A
    /// mean over two layers may lie halfway between two floats, so that the last bit of the text's value counts.
    private static let program = """
        import json, struct, sys
        from tensorboard.backend.event_processing import event_accumulator, plugin_event_accumulator
        from tensorboard.util import tensor_util
        plain = event_accumulator.EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
        plain.Reload()
        scalars = {tag: [[e.step, e.value] for e in plain.Scalars(tag)] for tag in plain.Tags()["scalars"]}
        server = plugin_event_accumulator.EventAccumulator(sys.argv[1])
        server.Reload()
        bars = {tag: [[e.step, tensor_util.make_ndarray(e.tensor_proto).tolist()] for e in server.Tensors(tag)]
                for tag in server.PluginTagToContent("histograms")}
        lines = [json.loads(line) for line in open(sys.argv[2])]
        metrics = {key: [[line["step"], struct.unpack("f", struct.pack("f", line[key]))[0]]
                         for line in lines if isinstance(line.get(key), (int, float))]
                   for key in {key for line in lines for key in line}}
        print(json.dumps({"scalars": scalars, "bars": bars, "metrics": metrics}))
        """

    @Test(
        .enabled(
            if: ProcessInfo.processInfo.environment["APUS_PYTHON"] != nil,
            "needs a Python with tensorboard: set APUS_PYTHON"))
    func `tensorboard reads every step once, across a resume that takes steps again`() throws {
        let python = try #require(ProcessInfo.processInfo.environment["APUS_PYTHON"])
        let scratch = try TrainScratch()
        try scratch.train()
        // As after a kill at step 8: steps 7 and 8 are taken again, and what was said of them is to be forgotten.
        try FileManager.default.removeItem(atPath: "\(scratch.path)/run/checkpoints/step-00000008")
        try scratch.train(["--resume", "--steps", "12"])
        #expect(scratch.names("run/tensorboard").count == 2)

        let read = try CLI.run(
            python,
            [
                "-c", Self.program, "\(scratch.path)/run/tensorboard", "\(scratch.path)/run/metrics.jsonl",
            ])
        #expect(read.status == 0, "\(read.errors)")
        let found = try read.object()
        let metrics = try scratch.metrics()
        #expect(metrics.count == 12)
        // Floats, and rounding again takes away what the way through decimal text may add.
        func points(_ key: String) throws -> [String: [[Double]]] {
            try #require(found[key] as? [String: [[Double]]]).mapValues { $0.map { [$0[0], Double(Float($0[1]))] } }
        }
        let scalars = try points("scalars")
        let written = try points("metrics")
        let keys = [
            "loss/loss", "loss/held_out_loss", "loss/balance_loss", "loss/z_loss", "experts/dropped_fraction",
            "optimizer/grad_norm", "optimizer/lr", "speed/tokens_per_second", "speed/mfu", "memory/peak_bytes",
        ]
        for tag in keys {
            let key = try #require(tag.split(separator: "/").last.map(String.init))
            let expected = try #require(written[key])
            #expect(scalars[tag] == expected && !expected.isEmpty, "\(tag)")
        }
        #expect(scalars.count == keys.count + 4, "\(scalars.keys.sorted())")

        let bars = try #require(found["bars"] as? [String: [[Any]]])
        #expect(Set(bars.keys) == ["expert_share_percent/layer_00", "expert_share_percent/layer_01"])
        for (layer, tag) in ["expert_share_percent/layer_00", "expert_share_percent/layer_01"].enumerated() {
            let entries = try #require(bars[tag])
            #expect(entries.compactMap { $0[0] as? Int } == Array(1...12))
            for (entry, line) in zip(entries, metrics) {
                let shares = try #require((line["expert_share"] as? [String: [Double]])?[String(layer)])
                let heights = try #require(entry[1] as? [[Double]])
                #expect(heights.map { $0[0] } == [0, 1, 2, 3] && heights.map { $0[1] } == [1, 2, 3, 4])
                for (height, share) in zip(heights, shares) { #expect(abs(height[2] - 100 * share) < 1e-3) }
                let peaks = try #require(scalars["peak_to_mean/layer_0\(layer)"])
                let peak = try #require(peaks.first { Int($0[0]) == entry[0] as? Int })
                #expect(abs(peak[1] - 4 * (shares.max() ?? 0)) < 1e-3)
            }
        }
    }
}
