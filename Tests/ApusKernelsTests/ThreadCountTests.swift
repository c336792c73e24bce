import ApusKernels
import ApusTensor
import ApusTestSupport
import Testing

/// Products large enough for oneDNN and for several pieces, over pools that would cut them differently.
@Suite struct `The number of threads` {
    private let allocator = CachingAllocator()
    private let input = 1024
    private let output = 768

    @Test(arguments: [2048, 300]) func `changes no bit of a large product`(tokens: Int) throws {
        let x = try allocator.random(Shape(tokens, input), seed: 1)
        let weight = try allocator.random(Shape(output, input), seed: 2)
        let dy = try allocator.random(Shape(tokens, output), seed: 3)
        try expectSameBitsForAnyThreadCount("NT, NN, TN") { backend in
            let y = try backend.sentinel(tokens, output)
            let dx = try backend.sentinel(tokens, input)
            let gradient = try backend.sentinel(output, input)
            try backend.matMul(x.matrix, weight.transpose, into: y)
            try backend.matMul(dy.matrix, weight.matrix, into: dx)
            try backend.matMul(dy.transpose, x.matrix, into: gradient)
            return [y, dx, gradient]
        }
    }

    /// A product wider than high is cut over its columns.
    @Test func `changes no bit of a wide product`() throws {
        let x = try allocator.random(Shape(512, input), seed: 1)
        let weight = try allocator.random(Shape(2 * output, input), seed: 2)
        try expectSameBitsForAnyThreadCount("wide") { backend in
            let y = try backend.sentinel(512, 2 * output)
            try backend.matMul(x.matrix, weight.transpose, into: y)
            return [y]
        }
    }

    @Test(arguments: [[0, 1024, 1280, 2048], [0, 5, 300, 2048]])
    func `changes no bit of a grouped product`(boundaries: [Int]) throws {
        let (tokens, experts) = (2048, boundaries.count - 1)
        let x = try allocator.random(Shape(tokens, input), seed: 1)
        let weights = try allocator.random(Shape(experts, output, input), seed: 2)
        let dy = try allocator.random(Shape(tokens, output), seed: 3)
        let offsets = try allocator.integers(boundaries)
        try expectSameBitsForAnyThreadCount("grouped") { backend in
            let y = try backend.sentinel(tokens, output)
            let dx = try backend.sentinel(tokens, input)
            let gradient = try backend.sentinel(experts, output, input)
            try backend.groupedMatMul(x, rows: nil, weights: weights, transposed: true, offsets: offsets, into: y)
            try backend.groupedMatMul(dy, rows: nil, weights: weights, transposed: false, offsets: offsets, into: dx)
            try backend.groupedWeightGradient(dy, x, rows: nil, offsets: offsets, into: gradient, adds: true)
            return [y, dx, gradient]
        }
    }
}
