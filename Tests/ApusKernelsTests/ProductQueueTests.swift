import ApusTensor
import ApusTestSupport
import CApusKernels
import Testing

@testable import ApusKernels

/// Products that threads share out among themselves.
@Suite struct ProductQueueTests {
    /// (M, N, K): few rows, many rows, more packed matrices than may be alive, several chunks of columns, no K.
    private static let sizes = [
        (1, 300, 64), (16, 2048, 40), (113, 96, 33), (300, 64, 257), (640, 130, 100), (1000, 32, 700),
        (130, 1100, 1030), (257, 2050, 513), (200, 33, 0), (5, 5, 5), (700, 256, 64), (512, 128, 128),
    ]

    @Test(arguments: [1, 2, 3, 7])
    func `have the bits of each product on its own`(threads: Int) throws {
        let backend = CPUBackend(threadCount: threads, productEngine: .own)
        var queue = ProductQueue(backend)
        var results: [(shared: Tensor, alone: Tensor)] = []
        // A product is addresses: what it reads must live until it runs.
        var operands: [Tensor] = []
        let scratch = try backend.workspace(bytesPerThread: apus_gemm_workspace_max())
        for (index, (m, n, k)) in Self.sizes.enumerated() {
            let a = try backend.allocator.random(Shape(m, max(k, 1)), seed: UInt64(3 * index))
            let b = try backend.allocator.random(Shape(n, max(k, 1)), seed: UInt64(3 * index + 1))
            let beta = Float(index % 2)
            let copies = try (0..<2).map { _ in
                try backend.allocator.random(Shape(m, n), seed: UInt64(3 * index + 2))
            }
            let products = copies.map { copy in
                var product = Product(a.matrix, b.transpose, into: copy, beta: beta, isBatchInvariant: false)
                product.arguments.k = k
                return product
            }
            queue.add(products[0])
            products[1].run(APUS_GEMM_OWN, scratch.pointer(thread: 0))
            results.append((copies[0], copies[1]))
            operands += [a, b]
        }
        try queue.run()
        for (result, size) in zip(results, Self.sizes) {
            let different = zip(result.shared.floats(), result.alone.floats()).count { $0.bitPattern != $1.bitPattern }
            #expect(different == 0, "\(size)")
        }
        withExtendedLifetime(operands) {}
    }

    @Test func `ask the system for nothing when loads change`() throws {
        let backend = CPUBackend(threadCount: 2)
        let (experts, width) = (8, 128)
        let x = try backend.zeros(Shape(2048, width), .f32)
        let weights = try backend.zeros(Shape(experts, 256, width), .f32)
        let y = try backend.zeros(Shape(2048, 256), .f32)
        let offsets = try backend.allocator.tensor([Int32](repeating: 0, count: experts + 1), Shape(experts + 1))
        var generator = SeededGenerator(seed: 3)
        var allocations: [Int] = []
        for _ in 0..<12 {
            let cuts = (1..<experts).map { _ in Int32.random(in: 0...2048, using: &generator) }.sorted()
            for (index, cut) in ([0] + cuts + [2048]).enumerated() { offsets.pointer(to: Int32.self)[index] = cut }
            try backend.groupedMatMul(x, rows: nil, weights: weights, transposed: true, offsets: offsets, into: y)
            allocations.append(backend.allocator.statistics.systemAllocations)
        }
        #expect(allocations.first == allocations.last, "\(allocations)")
    }

    /// Sizes up to those that nothing could hold: a plan only counts.
    @Test(arguments: [1, 2, 16], [(130, 1100, 1030), (65_536, 65_536, 65_536), (1 << 20, 32, 8), (3, 150_000, 4096)])
    func `are cut into parts that hold every element once`(threads: Int, size: (m: Int, n: Int, k: Int)) throws {
        let allocator = CachingAllocator()
        let one = try allocator.random(Shape(1, 1), seed: 1)
        var product = Product(one.matrix, one.transpose, into: one, isBatchInvariant: false)
        (product.arguments.m, product.arguments.n, product.arguments.k) = (size.m, size.n, size.k)
        let plan = ProductPlan([(product, APUS_GEMM_OWN)], threads: threads)
        var (computed, packed) = (0, 0)
        for part in plan.parts {
            switch part {
            case .whole(let piece, _): computed += piece.rowCount * piece.columnCount
            case .multiply(let job, let rows): computed += rows.count * plan.jobs[job].product.columnCount
            case .pack(_, let columns): packed += columns.count
            }
        }
        #expect(computed == size.m * size.n)
        #expect(packed == plan.jobs.reduce(0) { $0 + $1.product.columnCount })
        // A part is at least some rows: the smallest of these products feeds fewer than sixteen threads.
        #expect(plan.parts.count >= min(threads, 12))
        for job in plan.jobs.indices { #expect(job < ProductPlan.slots || plan.offset(of: job) < plan.packedBytes) }
    }
}
