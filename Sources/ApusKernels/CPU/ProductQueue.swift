import ApusTensor
import CApusKernels
import Glibc
import Synchronization

// Shape letters: M rows, N columns, K the contracted extent of a product.

/// Independent products, cut into parts that the threads of the pool take one after another.
///
/// A large product of our own kernels packs its B once, for all threads: first come parts that each pack some columns,
/// then parts that each multiply some rows, which wait until all columns are packed. Parts are handed out in order and a
/// part waits only for earlier ones, which some thread has then begun: the wait always ends. Parts are a small share of
/// the whole, so a thread that the machine slows down leaves its work to the others.
///
/// No bit depends on the cut: our own kernels sum every element in one order, and products of oneDNN, whose order is not
/// ours, are cut by their extents alone.
struct ProductQueue {
    private let backend: CPUBackend
    private var products: [(product: Product, engine: apus_gemm_engine)] = []

    init(_ backend: CPUBackend) { self.backend = backend }

    /// Adds a product whose C overlaps no other's.
    mutating func add(_ product: Product) {
        guard product.cost > 0 else { return }
        products.append((product, backend.productEngine.kernelEngine(for: product.arguments)))
    }

    /// Computes the products on all threads.
    func run() throws {
        let plan = ProductPlan(products, threads: backend.pool.threadCount)
        let scratch = try backend.workspace(bytesPerThread: apus_gemm_workspace_max())
        let packed = try backend.allocator.allocate(byteCount: plan.packedBytes, purpose: .workspace)
        let progress = try PackingProgress(jobs: plan.jobs.count, allocator: backend.allocator)
        backend.pool.run(parts: plan.parts.count) { index, thread in
            let workspace = scratch.pointer(thread: thread)
            switch plan.parts[index] {
            case .whole(let product, let engine):
                product.run(engine, workspace)
            case .pack(let number, let columns):
                progress.waitUntilFree(number, of: plan.jobs)
                plan.jobs[number].product.pack(columns, into: packed.pointer + plan.offset(of: number))
                progress.packed(number)
            case .multiply(let number, let rows):
                progress.waitUntilPacked(number, of: plan.jobs)
                let packed = packed.pointer + plan.offset(of: number)
                plan.jobs[number].product.rows(rows).run(packed: packed, workspace)
                progress.multiplied(number)
            }
        }
    }
}

/// How far each job is, counted by the threads.
private struct PackingProgress: @unchecked Sendable {
    private let storage: Storage
    private let packedParts: UnsafeMutablePointer<Atomic<Int>>
    private let multipliedParts: UnsafeMutablePointer<Atomic<Int>>

    init(jobs: Int, allocator: CachingAllocator) throws {
        // A page holds the counts of the usual number of jobs, so that the request is the same in every step.
        storage = try allocator.allocate(
            byteCount: max(4096, 2 * jobs * MemoryLayout<Atomic<Int>>.stride), purpose: .workspace)
        packedParts = storage.pointer.bindMemory(to: Atomic<Int>.self, capacity: 2 * jobs)
        multipliedParts = packedParts + jobs
        for index in 0..<2 * jobs { (packedParts + index).initialize(to: Atomic(0)) }
    }

    func packed(_ job: Int) { packedParts[job].wrappingAdd(1, ordering: .releasing) }
    func multiplied(_ job: Int) { multipliedParts[job].wrappingAdd(1, ordering: .releasing) }

    func waitUntilPacked(_ job: Int, of jobs: [ProductPlan.Job]) {
        PackingProgress.wait { packedParts[job].load(ordering: .acquiring) == jobs[job].packParts }
    }

    /// Waits until no thread reads the packed matrix whose place the job's takes.
    func waitUntilFree(_ job: Int, of jobs: [ProductPlan.Job]) {
        let last = job - ProductPlan.slots
        guard last >= 0 else { return }
        PackingProgress.wait { multipliedParts[last].load(ordering: .acquiring) == jobs[last].multiplyParts }
    }

    private static func wait(_ isDone: () -> Bool) {
        var spins = 0
        while !isDone() {
            spins += 1
            if spins > 1000 { sched_yield() }
        }
    }
}
