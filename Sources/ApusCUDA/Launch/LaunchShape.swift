/// How many threads a kernel is started with; the shapes that `Kernels/README.md` names.
struct LaunchShape: Sendable {
    /// Blocks.
    var grid: (x: Int, y: Int, z: Int)
    /// Threads of a block.
    var block: (x: Int, y: Int, z: Int)
    /// Bytes of shared memory that a block gets at the launch.
    var sharedBytes = 0

    init(grid: (x: Int, y: Int, z: Int), block: (x: Int, y: Int, z: Int), sharedBytes: Int = 0) {
        self.grid = grid
        self.block = block
        self.sharedBytes = sharedBytes
    }

    /// `blocks` blocks of `threads` in a row.
    static func blocks(_ blocks: Int, threads: Int = 256, sharedBytes: Int = 0) -> LaunchShape {
        LaunchShape(grid: (blocks, 1, 1), block: (threads, 1, 1), sharedBytes: sharedBytes)
    }

    /// Elements in order: 2,048 for each block, and around again.
    static func flat(_ count: Int) -> LaunchShape { .blocks(min(ceilDivide(count, 2048), 8192)) }

    /// Rows of `width` elements, eight of which a thread holds at once.
    static func rows(_ rows: Int, width: Int) -> LaunchShape {
        let x = min(ceilDivide(max(width, 1), 256) * 32, 256)
        let y = max(1, 256 / x)
        return LaunchShape(grid: (ceilDivide(rows, y), 1, 1), block: (x, y, 1))
    }

    /// The same for a kernel in which no thread needs another: rows of few elements share a warp.
    static func narrowRows(_ rows: Int, width: Int) -> LaunchShape {
        var x = 1
        while x < 256, 8 * x < width { x *= 2 }
        return LaunchShape(grid: (ceilDivide(rows, 256 / x), 1, 1), block: (x, 256 / x, 1))
    }

    /// Runs of rows whose columns each block sums in shared memory, `sums` sums for each column.
    static func rowRuns(_ rows: Int, width: Int, sums: Int = 1) -> LaunchShape {
        var shape = LaunchShape.rows(rows, width: width)
        while shape.block.y > 1, shape.block.y * sums * width * 4 > Kernel.usualShared { shape.block.y /= 2 }
        shape.sharedBytes = shape.block.y * sums * width * 4
        shape.grid.x = min(512, ceilDivide(rows, shape.block.y))
        return shape
    }

    /// A warp for each row.
    static func warps(_ rows: Int) -> LaunchShape { .blocks(ceilDivide(rows, 8)) }

    /// Whether there is nothing to do.
    var isEmpty: Bool { grid.x == 0 || grid.y == 0 || grid.z == 0 }
}

/// `a / b`, rounded up.
func ceilDivide(_ a: Int, _ b: Int) -> Int { (a + b - 1) / b }
