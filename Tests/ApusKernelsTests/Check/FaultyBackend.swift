import ApusKernels
import ApusTensor
import Synchronization

/// A CPU backend that may get one output of one op wrong, and records which ops are called.
///
/// Every requirement of `Backend` is here, so a new op must be added, and with it a case of ``Op``.
final class FaultyBackend: Backend {
    /// The ops of `Backend`, by the names of their requirements.
    enum Op: String, CaseIterable, Sendable {
        case matMul, groupedMatMul, groupedWeightGradient, gatedExperts, gatedExpertsBackward
        case gatedExpertsInputBackward
        case blockTopology, sdd, dsd, dstd, dds, ddst
        case rmsNorm, addRMSNorm, rmsNormBackward, layerNorm, layerNormBackward
        case activate, activateBackward, rotaryTable, rotate, attention, attentionBackward
        case shortConvolution, shortConvolutionBackward
        case softmax, softmaxBackward, sigmoid, sigmoidBackward, logSumExp, topK, sortByExpert
        case gateWeights, gateWeightsBackward, sumOverGroups, sumOverGroupsBackward, countChoices
        case chooseExperts, sumAndCount, softmaxGateBackward
        case balanceLoss, logitLoss, importanceLoss, limitToCapacity, padToCapacity, dropLightChoices
        case gatherRows, scatterRows, combineRows, combineRowsBackward, mixRows, mixRowsBackward, embed, embedBackward
        case dropRows, clamp, clampBackward, crossEntropy, crossEntropyBackward, divergence, distillationBackward
        case argMax, beginDecodeStep, storeKeys
        case fill, copy, add, addScaled, scale, multiply, convert, addBias, addColumnSums
        case sum, countNonFinite, fillRandom
        case adamW, gradientSquares, clipFactor, moveSelectionBias
    }

    /// One tensor that an op writes; `index` counts the outputs in the order of its parameters.
    struct Output: Hashable, Sendable {
        let op: Op
        let index: Int
    }

    /// How an output is spoiled.
    enum Change: CaseIterable, Sendable {
        /// Every number by 1 %, or by 0.01 where it is 0; the first of whole numbers by 1.
        case onePercent
        /// The last number by 1; the first of whole numbers.
        case oneElement
        /// The last number is as it was before, or the first of whole numbers, as if the op had not written it.
        case unwritten
    }

    let inner: CPUBackend
    private let fault: (output: Output, change: Change)?
    private let written = Mutex<Set<Output>>([])
    private let uploads = UploadLog()
    private let spoiledCount = Atomic<Int>(0)

    init(threadCount: Int = 2, fault: (output: Output, change: Change)? = nil) {
        inner = CPUBackend(threadCount: threadCount)
        self.fault = fault
    }

    /// The outputs that were written since this was last called.
    func takeWritten() -> Set<Output> {
        written.withLock { written in
            defer { written = [] }
            return written
        }
    }

    /// Whether the fault came about: what an op allocates itself was not anything before.
    var hasSpoiled: Bool { spoiledCount.load(ordering: .relaxed) > 0 }

    var allocator: CachingAllocator { inner.allocator }
    var stream: Stream { inner.stream }
    var isBatchInvariant: Bool { inner.isBatchInvariant }

    func wait(for event: Event) throws { try inner.wait(for: event) }

    // Transfers carry what checks draw and read: a wrong index would be followed, so they are not spoiled.
    func upload(_ bytes: UnsafeRawBufferPointer, into target: Tensor) throws {
        try inner.upload(bytes, into: target)
        uploads.remember(bytes, in: target)
    }
    func download(_ source: Tensor) -> Tensor { inner.download(source) }

    var isRecordingCheaper: Bool { inner.isRecordingCheaper }
    func record(_ body: @escaping () throws -> Void) throws -> any RecordedWork { try inner.record(body) }
    func timeMark() throws -> any TimeMark { inner.timeMark() }

    /// Notes what an op has written, and spoils it when it is the one to be spoiled.
    func done(_ op: Op, _ outputs: Tensor?...) {
        for (index, tensor) in outputs.enumerated() {
            guard let tensor else { continue }
            let output = Output(op: op, index: index)
            _ = written.withLock { $0.insert(output) }
            guard let fault, fault.output == output, tensor.count > 0 else { continue }
            guard fault.change != .unwritten || restore(tensor) else { continue }
            spoiledCount.wrappingAdd(1, ordering: .relaxed)
            FaultyBackend.spoil(tensor, fault.change)
        }
    }

    /// Puts back what one element was before the op; false where that is not known.
    private func restore(_ tensor: Tensor) -> Bool {
        let last = tensor.count - 1
        let element =
            !tensor.dtype.isFloating
            ? 0 : tensor.shape.rank < 2 ? last : last / tensor.rowCount * tensor.rowStride + last % tensor.rowCount
        guard let bytes = uploads.bytes(of: tensor, element: element) else { return false }
        let target = tensor.rawPointer + tensor.dtype.byteCount(elements: element)
        for (place, byte) in bytes.enumerated() { target.storeBytes(of: byte, toByteOffset: place, as: UInt8.self) }
        return true
    }

    private static func spoil(_ tensor: Tensor, _ change: Change) {
        guard change != .unwritten else { return }
        guard tensor.dtype == .f32 || tensor.dtype == .bf16 else {
            if tensor.dtype == .i32 { tensor.pointer(to: Int32.self)[0] += 1 }
            return
        }
        let width = tensor.rowCount
        for place in change == .oneElement ? tensor.count - 1..<tensor.count : 0..<tensor.count {
            let offset = tensor.shape.rank < 2 ? place : place / width * tensor.rowStride + place % width
            let new = { (old: Float) in change == .oneElement ? old + 1 : old == 0 ? 0.01 : old * 1.01 }
            if tensor.dtype == .f32 {
                let values = tensor.pointer(to: Float.self)
                values[offset] = new(values[offset])
            } else {
                let bits = tensor.pointer(to: UInt16.self)
                // Half an interval more, so that cutting the lower bits off rounds.
                let value = new(Float(bitPattern: UInt32(bits[offset]) << 16)).bitPattern + 0x8000
                bits[offset] = UInt16(truncatingIfNeeded: value >> 16)
            }
        }
    }
}
