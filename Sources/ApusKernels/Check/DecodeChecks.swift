import ApusTensor

// Shape letters: N rows, V vocabulary, S sequences, T tokens, Hk key heads, H head width.

extension OpCheck {
    static let decode: [[OpCheck]] = [
        make("arg-max", [.f32]) { probe in
            for (n, v) in [(1, 1), (3, 50), (2, 5003)] {
                let logits = try probe.draw(n, v)
                var values = logits.values
                // The second row's highest is twice there.
                if n > 1 { (values[v + 7], values[v + 3]) = (9, 9) }
                let choices = try probe.empty(n, 2, dtype: .i32)
                try probe.backend.argMax(probe.put(values, Shape(n, v), .f32).tensor, into: choices)
                let ids = (0..<n).map { row in
                    (0..<v).reduce(0) { values[row * v + $1] > values[row * v + $0] ? $1 : $0 }
                }
                probe.expect(
                    choices,
                    equals: ids.enumerated().flatMap { row, id in
                        [id, Int(Int32(bitPattern: Float(values[row * v + id]).bitPattern))]
                    })
            }
            // The first that is no number, or above all, is what is told.
            let logits = try probe.backend.tensor(
                [1, .nan, .infinity, 8, -.infinity, 2] as [Float], Shape(2, 3), .workspace)
            let choices = try probe.empty(2, 2, dtype: .i32)
            try probe.backend.argMax(logits, into: choices)
            probe.expect(choices[0..<1].columns(0..<1), equals: [1])
            probe.expect(choices[1..<2], equals: [0, Int(Float(8).bitPattern)])
        },
        make("decode step", [.f32]) { probe in
            let (s, size) = (3, 16)
            let state = DecodeState(
                choices: try probe.put([7, 0, 9, 0, 4, 0], s, 2), tokens: try probe.empty(s, dtype: .i32),
                positions: try probe.empty(s, dtype: .i32), places: try probe.empty(s, dtype: .i32),
                lengths: try probe.put([0, 15, 33], s), table: try probe.put([5, 0, 0, 2, 8, 0, 1, 3, 6], s, 3))
            try probe.backend.beginDecodeStep(state, blockSize: size)
            probe.expect(state.tokens, equals: [7, 9, 4])
            probe.expect(state.positions, equals: [0, 15, 33])
            probe.expect(state.places, equals: [5 * size, 2 * size + 15, 6 * size + 1])
            try probe.backend.beginDecodeStep(state, blockSize: size)
            probe.expect(state.places, equals: [5 * size + 1, 8 * size, 6 * size + 2])
            probe.expect(state.lengths, equals: [2, 17, 35])
        },
        make("store keys") { probe in
            let (t, heads, width) = (3, 2, 12)
            let fused = try probe.draw(t, 3 * heads * width)
            let part = { (first: Int) in
                fused.tensor.columns(first * heads * width..<(first + 1) * heads * width).reshaped(t, heads, width)
            }
            let kept = try (0..<2).map { _ in try probe.draw(40, heads, width) }
            let places = [17, 0, 39]
            try probe.backend.storeKeys(
                part(1), part(2), places: probe.put(places, t), keptKeys: kept[0].tensor, keptValues: kept[1].tensor)
            for (index, target) in kept.enumerated() {
                var expected = target.values
                for (token, place) in places.enumerated() {
                    for x in 0..<heads * width {
                        expected[place * heads * width + x] =
                            fused.values[token * 3 * heads * width + (index + 1) * heads * width + x]
                    }
                }
                probe.expect(target.tensor, expected)
            }
        },
    ]
}
