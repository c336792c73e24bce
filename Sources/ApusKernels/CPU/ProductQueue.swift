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
        let plan = Plan(products, threads: backend.pool.threadCount)
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

/// A piece of work for one thread.
private enum Part {
    /// A product, or a piece of one, with its packing.
    case whole(Product, apus_gemm_engine)
    /// Columns of a job's B.
    case pack(job: Int, columns: Range<Int>)
    /// Rows of a job's C.
    case multiply(job: Int, rows: Range<Int>)
}

/// A product whose packed B the threads share.
private struct Job {
    let product: Product
    var packParts = 0
    var multiplyParts = 0
}

/// The parts of some products, from large to small, so that the threads end together: each part is at most a share of
/// what is left (guided self-scheduling, Polychronopoulos and Kuck 1987).
private struct Plan {
    /// Packed matrices that may be alive at once: one in use, one being packed, one that a slow thread still reads.
    static let slots = 3
    /// Floats of a packed matrix, unless a single panel of columns takes more.
    private static let slotFloats = 512 * 1024
    /// Bytes of a packed matrix's place: few sizes, for loads differ from step to step and what is allocated should not.
    private static let slotSizes = [64 << 10, 512 << 10, slotFloats * 4 + (64 << 10)]
    /// Columns that a part packs: whole panels of every kernel.
    private static let packColumns = 128
    /// Rows that a part multiplies at least, and a product whose packing threads share has at least twice.
    private static let leastRows = 56
    /// The cost of a part too short to be worth handing out.
    private static let leastCost = 1 << 20

    private(set) var parts: [Part] = []
    private(set) var jobs: [Job] = []
    private let threads: Int
    private var remaining: Int
    private var slotBytes = 0

    /// Bytes for all packed matrices.
    var packedBytes: Int { jobs.isEmpty ? 0 : slotBytes * Plan.slots }

    init(_ products: [(product: Product, engine: apus_gemm_engine)], threads: Int) {
        self.threads = threads
        remaining = products.reduce(0) { $0 + $1.product.cost }
        for (product, engine) in products.sorted(by: { $0.product.cost > $1.product.cost }) {
            let share = self.share(of: remaining)
            if engine != APUS_GEMM_OWN {
                addFixedPieces(of: product, engine)
            } else if product.cost <= share {
                parts.append(.whole(product, engine))
            } else if product.rowCount < 2 * Plan.leastRows {
                addColumns(of: product, pieces: (product.cost + share - 1) / share)
            } else {
                addPacked(product)
            }
            remaining -= product.cost
        }
        slotBytes = Plan.slotSizes.first { $0 >= slotBytes } ?? slotBytes
    }

    /// The largest part to hand out when `cost` is left.
    private func share(of cost: Int) -> Int {
        threads == 1 ? cost : max(Plan.leastCost, cost / (2 * threads))
    }

    /// Where a job's packed B is.
    func offset(of job: Int) -> Int { job % Plan.slots * slotBytes }

    private mutating func addFixedPieces(of product: Product, _ engine: apus_gemm_engine) {
        // The larger extent is cut, so that the operand which every piece packs for itself is the smaller one.
        let cutsRows = product.rowCount >= product.columnCount
        let extent = cutsRows ? product.rowCount : product.columnCount
        for range in Plan.cut(extent, into: extent / 256, unit: 16) {
            parts.append(.whole(cutsRows ? product.rows(range) : product.columns(range), engine))
        }
    }

    private mutating func addColumns(of product: Product, pieces: Int) {
        for columns in Plan.cut(product.columnCount, into: min(pieces, product.columnCount / 64), unit: 32) {
            parts.append(.whole(product.columns(columns), APUS_GEMM_OWN))
        }
    }

    private mutating func addPacked(_ product: Product) {
        let columnsAtOnce = max(Plan.packColumns, Plan.slotFloats / max(product.depth, 1))
        let chunks = (product.columnCount + columnsAtOnce - 1) / columnsAtOnce
        var remaining = remaining
        for columns in Plan.cut(product.columnCount, into: chunks, unit: 32) {
            let chunk = chunks == 1 ? product : product.columns(columns)
            let packs = Plan.cut(columns.count, into: columns.count / Plan.packColumns, unit: 64)
            parts += packs.map { .pack(job: jobs.count, columns: $0) }
            var job = Job(product: chunk, packParts: packs.count)
            var row = 0
            while row < chunk.rowCount {
                let fair = share(of: remaining) * chunk.rowCount / chunk.cost
                var rows = min(max(Plan.leastRows, fair), chunk.rowCount - row)
                if chunk.rowCount - row - rows < Plan.leastRows { rows = chunk.rowCount - row }
                parts.append(.multiply(job: jobs.count, rows: row..<row + rows))
                job.multiplyParts += 1
                remaining -= chunk.cost * rows / chunk.rowCount
                row += rows
            }
            jobs.append(job)
            slotBytes = max(slotBytes, (chunk.packedByteCount + 63) / 64 * 64)
        }
    }

    /// `extent` in at most `pieces` ranges of about the same length, which begin on multiples of `unit`.
    private static func cut(_ extent: Int, into pieces: Int, unit: Int) -> [Range<Int>] {
        let pieces = max(1, min(pieces, extent / unit))
        return (0..<pieces).map { piece in
            let end = piece + 1 == pieces ? extent : extent * (piece + 1) / pieces / unit * unit
            return extent * piece / pieces / unit * unit..<end
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

    func waitUntilPacked(_ job: Int, of jobs: [Job]) {
        PackingProgress.wait { packedParts[job].load(ordering: .acquiring) == jobs[job].packParts }
    }

    /// Waits until no thread reads the packed matrix whose place the job's takes.
    func waitUntilFree(_ job: Int, of jobs: [Job]) {
        let last = job - Plan.slots
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
