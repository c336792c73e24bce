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

    init(
        _ q: Tensor, _ queryStarts: Tensor, _ kv: KVView, _ mask: AttentionMask, _ scale: Float, device: CUDADevice
    ) {
        self.queryStarts = queryStarts
        self.mask = mask
        self.scale = scale
        (tokens, keyTokens) = (q.shape[0], kv.keys.shape[0])
        (queryHeads, keyHeads, width) = (q.shape[1], kv.headCount, q.shape[2])
        kernels = AttentionKernels(q.dtype, width: width, device: device)
        precondition(queryHeads % keyHeads == 0 && width <= 256 && scale > 0, "\(queryHeads) heads \(width) wide")
        precondition(queryHeads / keyHeads <= min(kernels.rows, 64), "too many heads share keys")
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
        shape(of: tokens, tiles: ceilDivide(tokens, kernels.rows / (queryHeads / keyHeads)), pass)
    }

    /// A row for each key.
    var keyShape: LaunchShape {
        var shape = shape(of: keyTokens, tiles: ceilDivide(keyTokens, kernels.rows), .keyGradient)
        // The gradients of keys and of values do not fit the registers of one block then.
        if kernels.splitsKeyGradient { shape.grid.z = 2 }
        return shape
    }

    /// Every sequence may end in a tile that is not full.
    private func shape(of tokens: Int, tiles: Int, _ pass: AttentionKernels.Pass) -> LaunchShape {
        LaunchShape(
            grid: (tokens == 0 ? 0 : tiles + sequences, keyHeads, 1), block: (kernels.threads(pass), 1, 1),
            sharedBytes: kernels.sharedBytes(pass, width: width))
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

    private let engine: Engine

    init(_ dtype: DType, width: Int, device: CUDADevice) {
        if dtype == .f32 {
            engine = .plain
        } else if device.capability == LibraryVersion(9, 0), width <= 128 {
            engine = .hopper(width <= 64 ? 64 : 128)
        } else {
            engine = .tensorCores([32, 64, 128].first { $0 >= width } ?? 256)
        }
    }

    /// The end of the kernels' names.
    var ending: String {
        switch engine {
        case .plain: "f32"
        case .tensorCores(let tile): "bf16_\(tile)"
        case .hopper(let tile): "sm90a_\(tile)"
        }
    }

    /// Rows of one block.
    var rows: Int {
        switch engine {
        case .plain: 32
        case .tensorCores(256): 64
        case .tensorCores, .hopper: 128
        }
    }

    /// Whether the gradients of keys and of values take a block each.
    var splitsKeyGradient: Bool {
        if case .tensorCores(256) = engine { true } else { false }
    }

    func threads(_ pass: Pass) -> Int {
        switch engine {
        case .plain, .hopper: 256
        case .tensorCores: pass == .forward ? 128 : 2 * rows
        }
    }

    func sharedBytes(_ pass: Pass, width: Int) -> Int {
        let tileRows = (pass == .forward ? rows : 2 * rows) + 256
        let facts = pass == .keyGradient ? 2048 : 0
        return switch engine {
        case .plain: 4 * (64 * (width + 4) + 64 * width)
        case .tensorCores(let tile): tileRows * (2 * tile + 16) + facts
        case .hopper(let tile): 1024 + tileRows * 2 * tile + facts
        }
    }
}
