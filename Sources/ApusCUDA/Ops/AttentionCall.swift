import ApusKernels
import ApusTensor

// Shape letters: T query tokens, S sequences, Hq query heads, Hk key heads, G = Hq / Hk, H head width, W that of a tile.

/// Sizes, mask and placement of one call of attention, as `Kernels/attention.cuh` has them.
struct AttentionCall {
    let kernels: AttentionKernels
    let queryStarts: Tensor
    let mask: AttentionMask
    let scale: Float
    let tokens: Int
    let keyTokens: Int
    let queryHeads: Int
    let keyHeads: Int
    let width: Int
    private(set) var keyStarts: Tensor?
    private(set) var table: Tensor?
    private(set) var lengths: Tensor?
    private(set) var blockSize = 0
    private(set) var keyBlockStride = 0
    private(set) var valueBlockStride = 0

    /// - Parameter passes: Those that will be launched.
    /// - Throws: ``KernelLimitError`` for heads that are too wide, or share a key head with too many.
    init(
        _ q: Tensor, _ queryStarts: Tensor, _ kv: KVView, _ mask: AttentionMask, _ scale: Float,
        _ passes: [AttentionKernels.Pass], _ limits: KernelLimits
    ) throws(KernelLimitError) {
        self.queryStarts = queryStarts
        self.mask = mask
        self.scale = scale
        (tokens, keyTokens) = (q.shape[0], kv.keys.shape[0])
        (queryHeads, keyHeads, width) = (q.shape[1], kv.headCount, q.shape[2])
        kernels = AttentionKernels(q.dtype, width: width, limits)
        precondition(queryHeads % keyHeads == 0 && scale > 0, "\(queryHeads) heads over \(keyHeads), scale \(scale)")
        if width > AttentionKernels.widest { throw .headWidth(width, most: AttentionKernels.widest) }
        let most = passes.map(kernels.mostHeadsPerKeyHead).min() ?? 1
        if queryHeads / keyHeads > most { throw .headsPerKeyHead(queryHeads / keyHeads, most: most) }
        switch kv.layout {
        case .contiguous(let cumulativeLengths): keyStarts = cumulativeLengths
        case .blocks(let table, let lengths):
            self.table = table
            self.lengths = lengths
            blockSize = kv.keys.shape[1]
            (keyBlockStride, valueBlockStride) = (kv.keys.rowStride, kv.values.rowStride)
        }
    }

    var sequences: Int { queryStarts.count - 1 }

    /// A row for each query token and each of the G heads that share a key head.
    func queryShape(_ pass: AttentionKernels.Pass) -> LaunchShape {
        shape(of: tokens, tiles: ceilDivide(tokens, kernels.rows(pass) / (queryHeads / keyHeads)), pass)
    }

    /// A row for each key.
    var keyShape: LaunchShape {
        var shape = shape(of: keyTokens, tiles: ceilDivide(keyTokens, kernels.rows(.keyGradient)), .keyGradient)
        // The gradients of keys and of values do not fit the registers of one block then.
        if kernels.splitsKeyGradient { shape.grid.z = 2 }
        return shape
    }

    /// Every sequence may end in a tile that is not full.
    private func shape(of tokens: Int, tiles: Int, _ pass: AttentionKernels.Pass) -> LaunchShape {
        LaunchShape(
            grid: (tokens == 0 ? 0 : tiles + sequences, keyHeads, 1), block: (kernels.threads(pass), 1, 1),
            sharedBytes: kernels.sharedBytes(pass))
    }
}

/// Which of the attention kernels computes a call.
struct AttentionKernels {
    /// What one kernel computes.
    enum Pass {
        case forward, queryGradient, keyGradient
    }

    /// How products are formed.
    private enum Engine {
        /// Plain f32.
        case plain
        /// `mma.sync`, with tiles W wide.
        case tensorCores(Int)
        /// `wgmma` of Hopper, with tiles W wide.
        case hopper(Int)
    }

    /// H of the widest heads.
    static let widest = 256

    private let engine: Engine
    private let width: Int
    private let limits: KernelLimits

    init(_ dtype: DType, width: Int, _ limits: KernelLimits) {
        self.width = width
        self.limits = limits
        if dtype == .f32 {
            engine = .plain
        } else if limits.hasHopperKernels, width <= 128 {
            engine = .hopper(width <= 64 ? 64 : 128)
        } else {
            engine = .tensorCores([32, 64, 128].first { $0 >= width } ?? AttentionKernels.widest)
        }
    }

    /// The end of a kernel's name.
    func ending(_ pass: Pass) -> String {
        switch engine {
        case .plain: "f32"
        case .tensorCores(let tile): isCompact(pass) ? "bf16_\(tile)_compact" : "bf16_\(tile)"
        case .hopper(let tile): "sm90a_\(tile)"
        }
    }

    /// Rows of one block.
    func rows(_ pass: Pass) -> Int {
        switch engine {
        case .plain: isCompact(pass) ? 16 : 32
        case .tensorCores(256): 64
        case .tensorCores, .hopper: 128
        }
    }

    /// Query heads that may share a key head: each has a row for a token, among those that a block owns or walks.
    func mostHeadsPerKeyHead(_ pass: Pass) -> Int {
        guard case .keyGradient = pass else { return rows(pass) }
        return switch engine {
        case .plain: 32
        case .tensorCores(256): isCompact(pass) ? 32 : 64
        case .tensorCores, .hopper: 64
        }
    }

    /// Whether the gradients of keys and of values take a block each.
    var splitsKeyGradient: Bool {
        if case .tensorCores(256) = engine { true } else { false }
    }

    func threads(_ pass: Pass) -> Int {
        switch engine {
        case .plain: 8 * rows(pass)
        case .tensorCores: pass == .forward && !isCompact(pass) ? 128 : 2 * rows(pass)
        case .hopper: 256
        }
    }

    func sharedBytes(_ pass: Pass) -> Int {
        guard isCompact(pass) else { return roomyBytes(pass) }
        if case .plain = engine { return 4 * (64 * (width + 4) + 32 * width) }
        return 98_304 + factBytes(pass)
    }

    /// Whether a block gets too little shared memory for the kernel that is fastest where it fits.
    private func isCompact(_ pass: Pass) -> Bool {
        if case .hopper = engine { return false }
        return roomyBytes(pass) + AttentionKernels.ownBytes > limits.sharedMemory
    }

    /// Bytes that the kernels may have of their own, beside those that a launch asks for.
    private static let ownBytes = 512

    private func roomyBytes(_ pass: Pass) -> Int {
        let ownTiles = pass == .forward ? 1 : 2
        return switch engine {
        case .plain: 4 * (64 * (width + 4) + ownTiles * 32 * width)
        case .tensorCores(let tile): (ownTiles * rows(pass) + 256) * (2 * tile + 16) + factBytes(pass)
        case .hopper(let tile): 1024 + (ownTiles * rows(pass) + 256) * 2 * tile + factBytes(pass)
        }
    }

    /// What the walked rows see.
    private func factBytes(_ pass: Pass) -> Int { pass == .keyGradient ? 2048 : 0 }
}
