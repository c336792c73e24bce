import CApusKernels

// Shape letters: M rows, N columns, K the contracted extent of a product.

/// The parts of some products, from large to small, so that the threads end together: each part is at most a share of
/// what is left (guided self-scheduling, Polychronopoulos and Kuck 1987).
struct ProductPlan {
    /// A piece of work for one thread.
    enum Part {
        /// A product, or a piece of one, with its packing.
        case whole(Product, apus_gemm_engine)
        /// Columns of a job's B.
        case pack(job: Int, columns: Range<Int>)
        /// Rows of a job's C.
        case multiply(job: Int, rows: Range<Int>)
    }

    /// A product whose packed B the threads share.
    struct Job {
        let product: Product
        var packParts = 0
        var multiplyParts = 0
    }

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
    var packedBytes: Int { jobs.isEmpty ? 0 : slotBytes * ProductPlan.slots }

    init(_ products: [(product: Product, engine: apus_gemm_engine)], threads: Int) {
        self.threads = threads
        remaining = products.reduce(0) { $0 + $1.product.cost }
        for (product, engine) in products.sorted(by: { $0.product.cost > $1.product.cost }) {
            let share = self.share(of: remaining)
            if engine != APUS_GEMM_OWN {
                addFixedPieces(of: product, engine)
            } else if product.cost <= share {
                parts.append(.whole(product, engine))
            } else if product.rowCount < 2 * ProductPlan.leastRows {
                addColumns(of: product, pieces: (product.cost + share - 1) / share)
            } else {
                addPacked(product)
            }
            remaining -= product.cost
        }
        slotBytes = ProductPlan.slotSizes.first { $0 >= slotBytes } ?? slotBytes
    }

    /// The largest part to hand out when `cost` is left.
    private func share(of cost: Int) -> Int {
        threads == 1 ? cost : max(ProductPlan.leastCost, cost / (2 * threads))
    }

    /// Where a job's packed B is.
    func offset(of job: Int) -> Int { job % ProductPlan.slots * slotBytes }

    private mutating func addFixedPieces(of product: Product, _ engine: apus_gemm_engine) {
        // The larger extent is cut, so that the operand which every piece packs for itself is the smaller one.
        let cutsRows = product.rowCount >= product.columnCount
        let extent = cutsRows ? product.rowCount : product.columnCount
        for range in ProductPlan.cut(extent, into: extent / 256, unit: 16) {
            parts.append(.whole(cutsRows ? product.rows(range) : product.columns(range), engine))
        }
    }

    private mutating func addColumns(of product: Product, pieces: Int) {
        for columns in ProductPlan.cut(product.columnCount, into: min(pieces, product.columnCount / 64), unit: 32) {
            parts.append(.whole(product.columns(columns), APUS_GEMM_OWN))
        }
    }

    private mutating func addPacked(_ product: Product) {
        let columnsAtOnce = max(ProductPlan.packColumns, ProductPlan.slotFloats / max(product.depth, 1))
        let chunks = (product.columnCount + columnsAtOnce - 1) / columnsAtOnce
        var remaining = remaining
        for columns in ProductPlan.cut(product.columnCount, into: chunks, unit: 32) {
            let chunk = chunks == 1 ? product : product.columns(columns)
            let packs = ProductPlan.cut(columns.count, into: columns.count / ProductPlan.packColumns, unit: 64)
            parts += packs.map { .pack(job: jobs.count, columns: $0) }
            var job = Job(product: chunk, packParts: packs.count)
            let rowCost = max(1, chunk.cost / chunk.rowCount)
            var row = 0
            while row < chunk.rowCount {
                let fair = share(of: remaining) / rowCost
                var rows = min(max(ProductPlan.leastRows, fair), chunk.rowCount - row)
                if chunk.rowCount - row - rows < ProductPlan.leastRows { rows = chunk.rowCount - row }
                parts.append(.multiply(job: jobs.count, rows: row..<row + rows))
                job.multiplyParts += 1
                remaining -= rowCost * rows
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
