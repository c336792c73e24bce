import ApusTensor

// Shape letters: R rows, F columns of a row that are here.

extension OpCheck {
    static let dropout: [[OpCheck]] = [
        make("dropout") { probe in
            // Numbers beyond what 16, and with columns beyond what 32 bits hold; parts of rows that begin anywhere.
            let numbers = [0, 1, 65_535, 65_536, 3_000_000_017, 4, 2]
            let digits = numbers.flatMap { [Double($0 / 65_536), Double($0 % 65_536)] }
            let stream = RandomStream(seed: 11, purpose: .expertDropout, layer: 3, step: 9)
            for (first, width, total) in [(0, 33, 33), (5, 300, 1001), (63, 1, 64)] {
                let x = try probe.draw(numbers.count, width)
                let y = try probe.empty(numbers.count, width)
                let dropout = RowDropout(
                    numbers: try probe.put(digits, Shape(numbers.count, 2), .f32).tensor, firstColumn: first,
                    columns: total, rate: 0.4, stream: stream)
                try probe.backend.dropRows(x.tensor, dropout, into: y)
                probe.expect(
                    y,
                    (0..<numbers.count * width).map { place in
                        let index = UInt64(numbers[place / width]) * UInt64(total) + UInt64(first + place % width)
                        return uniform(stream, index) >= Double(Float(0.4)) ? x.values[place] / (1 - 0.4) : 0
                    })
            }
        }
    ]
}
