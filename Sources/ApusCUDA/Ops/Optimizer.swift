public import ApusKernels
public import ApusTensor

// Shape letters: E experts, G routing groups.

extension CUDABackend: OptimizerOp {
    public func adamW(_ runs: [AdamWRun], gradientScale: Tensor) throws {
        for some in BufferTable.launches(of: runs) {
            var table = BufferTable(wordsOfEach: 17)
            for run in some {
                let (buffers, count) = (run.buffers, run.buffers.weights.count)
                let tensors = [buffers.weights, buffers.first, buffers.second, buffers.gradient]
                for tensor in tensors + [buffers.master].compactMap(\.self) {
                    precondition(tensor.isContiguous && tensor.count == count)
                    try wait(for: tensor)
                }
                table.add(blocks: LaunchShape.flat(count).grid.x) { first, blocks in
                    let isWide = buffers.gradient.dtype == .f32
                    return tensors.map(\.address) + [buffers.master?.address ?? 0]
                        + [count, isWide ? 1 : 0, first, blocks].map { UInt64($0) } + run.step.words
                        + [
                            run.rounding.seed, UInt64(run.rounding.word0), UInt64(run.rounding.word1), run.firstElement,
                        ]
                }
            }
            try launch("adamw", .blocks(table.blocks), table, table.count, gradientScale)
        }
    }

    public func gradientSquares(_ gradients: [Tensor], into sum: Tensor) throws {
        let blocks = gradients.map { ceilDivide($0.count, CUDABackend.blockElements) }
        let total = blocks.reduce(0, +)
        // A partial sum is a double: two words.
        let partials = try empty(Shape(max(total, 1), 2), .f32, .workspace)
        var begin = 0
        for some in BufferTable.launches(of: Array(zip(gradients, blocks))) {
            var table = BufferTable(wordsOfEach: 5)
            for (gradient, blocks) in some {
                precondition(gradient.isContiguous && gradient.dtype.isFloating)
                try wait(for: gradient)
                table.add(blocks: blocks) { first, blocks in
                    let isHalf = gradient.dtype == .bf16
                    return [gradient.address] + [gradient.count, isHalf ? 1 : 0, first, blocks].map { UInt64($0) }
                }
            }
            try launch(
                "gradient_squares", .blocks(table.blocks), partials[begin..<begin + table.blocks], table, table.count)
            begin += table.blocks
        }
        try finishSum(partials, total, factor: 1, into: sum)
    }

    public func clipFactor(
        sumOfSquares: Tensor, loss: Tensor?, previous: Tensor?, limit: Float, into scale: Tensor
    ) throws {
        try launch("clip_factor", .blocks(1, threads: 1), scale, sumOfSquares, loss, previous, limit)
    }

    public func moveSelectionBias(_ bias: Tensor, choices: [Tensor], rate: Float, gradientScale: Tensor) throws {
        precondition(bias.isContiguous && bias.dtype == .f32 && bias.count <= 1024)
        guard let first = choices.first else { return }
        var loads = first
        if choices.count > 1 {
            loads = try zeros(Shape(1, bias.count), .f32, .workspace)
            for part in choices { try addColumnSums(part, into: loads.reshaped(bias.count)) }
        }
        precondition(loads.isContiguous && loads.rowCount == bias.count)
        try launch(
            "move_selection_bias", .blocks(1, threads: 1024), bias, loads, loads.shape[0], bias.count, rate,
            gradientScale)
    }
}

/// The flat buffers that one launch goes over, each with blocks of its own, as a kernel gets them: by value.
private struct BufferTable: KernelArgument {
    /// Buffers that one launch takes; `Kernels/adamw.cu` has the same.
    private static let most = 24
    private let wordsOfEach: Int
    private var words: [UInt64] = []
    /// Buffers.
    private(set) var count = 0
    /// Blocks of all of them.
    private(set) var blocks = 0

    init(wordsOfEach: Int) { self.wordsOfEach = wordsOfEach }

    /// Cuts a list into what launches take.
    static func launches<Buffer>(of buffers: [Buffer]) -> [ArraySlice<Buffer>] {
        stride(from: 0, to: buffers.count, by: most).map { buffers[$0..<min($0 + most, buffers.count)] }
    }

    /// Adds a buffer with `blocks` blocks, which `entry` describes by the first of them and their number.
    mutating func add(blocks: Int, _ entry: (_ first: Int, _ blocks: Int) -> [UInt64]) {
        let entry = entry(self.blocks, blocks)
        precondition(entry.count == wordsOfEach && count < BufferTable.most)
        words += entry
        count += 1
        self.blocks += blocks
    }

    func append(to arguments: inout ArgumentList) {
        arguments.append(words + Array(repeating: 0, count: BufferTable.most * wordsOfEach - words.count))
    }
}

extension AdamWStep {
    /// The constants as `Kernels/adamw.cu` reads them, two to a word.
    fileprivate var words: [UInt64] {
        let reals = [
            learningRate, beta1, beta2, epsilon, weightDecay, correction(beta1), correction(beta2), 0,
        ]
        return stride(from: 0, to: reals.count, by: 2).map {
            UInt64(reals[$0].bitPattern) | UInt64(reals[$0 + 1].bitPattern) << 32
        }
    }
}
