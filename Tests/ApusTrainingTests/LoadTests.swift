import Testing

@testable import ApusTraining

private func summary(_ layers: [(layer: Int, choices: [Int])]) -> RoutingSummary {
    summary(layers.map { RoutingSummary.Layer(layer: $0.layer, choices: $0.choices, rows: $0.choices) })
}

private func summary(_ layers: [RoutingSummary.Layer]) -> RoutingSummary {
    RoutingSummary(layers: layers, balance: nil, z: nil, droppedFraction: 0)
}

@Suite struct LoadMonitorTests {
    /// The warnings of `count` like steps, in the order they came.
    private func warnings(
        _ monitor: inout LoadMonitor, _ choices: [Int], steps count: Int, k: Int = 1
    ) -> [(step: Int, text: String)] {
        (1...count).flatMap { step in
            monitor.observe(summary([(3, choices)])) { _ in k }.map { (step, $0) }
        }
    }

    @Test func `a dead expert is told once, and again after it has recovered`() {
        var monitor = LoadMonitor()
        let first = warnings(&monitor, [5, 0, 5], steps: 3 * LoadMonitor.window)
        #expect(first.map(\.step) == [LoadMonitor.window])
        #expect(first.first?.text.hasPrefix("layer 3: expert 1 got no token for \(LoadMonitor.window) steps") == true)
        #expect(warnings(&monitor, [5, 1, 5], steps: 1).isEmpty)
        #expect(warnings(&monitor, [5, 0, 5], steps: LoadMonitor.window).map(\.step) == [LoadMonitor.window])
    }

    @Test func `experts that die together share a line, and one that is chosen in time is alive`() {
        var monitor = LoadMonitor()
        #expect(warnings(&monitor, [0, 4, 0, 6], steps: LoadMonitor.window - 1).isEmpty)
        #expect(warnings(&monitor, [1, 4, 0, 6], steps: 1).first?.text.contains("expert 2 got") == true)
        var other = LoadMonitor()
        #expect(
            warnings(&other, [0, 4, 0, 6], steps: LoadMonitor.window).first?.text.contains("expert 0, 2 got") == true)
    }

    @Test func `a collapsed layer is told once, and again after it has recovered`() {
        var monitor = LoadMonitor()
        let collapsed = [970, 10, 10, 10]
        let first = warnings(&monitor, collapsed, steps: 3 * LoadMonitor.window)
        #expect(first.map(\.step) == [LoadMonitor.window])
        #expect(first.first?.text.hasPrefix("layer 3 has collapsed: 1 of 4 experts get 97.0 %") == true)
        #expect(warnings(&monitor, [250, 250, 250, 250], steps: 1).isEmpty)
        #expect(warnings(&monitor, collapsed, steps: LoadMonitor.window).count == 1)
    }

    @Test(arguments: [
        ([950, 30, 10, 10], 1, "not more than the share"), ([990, 10], 1, "two experts, one choice"),
        ([500, 490, 5, 5], 2, "four experts, two choices"),
    ])
    func `what is no collapse`(_ choices: [Int], _ k: Int, _ why: String) {
        var monitor = LoadMonitor()
        #expect(warnings(&monitor, choices, steps: 2 * LoadMonitor.window, k: k).isEmpty, "\(why)")
    }

    @Test func `layers are watched apart`() {
        var monitor = LoadMonitor()
        var told: [String] = []
        for _ in 1...LoadMonitor.window {
            told += monitor.observe(summary([(0, [1, 1]), (5, [0, 2]), (9, [2, 0])])) { _ in 1 }
        }
        #expect(told.count == 2)
        #expect(
            told.contains { $0.hasPrefix("layer 5: expert 0 ") } && told.contains { $0.hasPrefix("layer 9: expert 1 ") }
        )
    }
}

@Suite struct LoadTableTests {
    @Test func `loads of steps and layers add up`() {
        var table = LoadTable()
        #expect(table.text.isEmpty)
        table.add(
            summary([
                RoutingSummary.Layer(layer: 1, choices: [6, 2, 0, 0], rows: [3, 2, 0, 0]),
                RoutingSummary.Layer(layer: 10, choices: [2, 2, 2, 2], rows: [2, 2, 2, 2]),
            ]))
        table.add(
            summary([
                RoutingSummary.Layer(layer: 1, choices: [2, 6, 0, 0], rows: [2, 3, 0, 0]),
                RoutingSummary.Layer(layer: 10, choices: [2, 2, 2, 2], rows: [2, 2, 2, 2]),
            ]))
        let lines = table.text.split(separator: "\n").map { $0.split(separator: " ").map(String.init) }
        #expect(lines.count == 3)
        // 16 choices, 8 and 8: peak 2 of the mean, half the entropy, 6 dropped, two experts dead.
        #expect(lines[1] == ["1", "2.00", "0.500", "37.50", "2", "50.0", "50.0", "0.0", "0.0"])
        #expect(lines[2] == ["10", "1.00", "1.000", "0.00", "0", "25.0", "25.0", "25.0", "25.0"])
    }

    @Test func `a wide layer shows its ends`() {
        var table = LoadTable()
        table.add(summary([(0, Array(1...64))]))
        let row = table.text.split(separator: "\n")[1]
        #expect(row.contains(" ... ") && row.hasSuffix("3.08"))
        #expect(row.count < 110)
    }

    @Test func `a layer without choices does not divide by zero`() {
        let layer = RoutingSummary.Layer(layer: 0, choices: [0, 0], rows: [0, 0])
        #expect(layer.shares == [0, 0])
        #expect(layer.peakToMean == 0)
        var table = LoadTable()
        table.add(summary([layer]))
        #expect(table.text.contains("0.00"))
    }
}
