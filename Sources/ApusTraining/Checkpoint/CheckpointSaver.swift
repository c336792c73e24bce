public import ApusCollectives
public import ApusKernels
public import ApusModels
import ApusNN
public import ApusOptim
public import ApusTensor

/// Saves the checkpoints of a run, together with the other ranks of it: each rank writes its own files.
///
/// 1. A parameter is written whole, by one of the ranks that hold it or a part of it; the optimizer's state in pieces, as
///    it is held. Any layout loads both, and on one rank everything is as ``CheckpointFolder`` writes it.
/// 2. The first rank makes the folder, all write into it and tell what they wrote, the first rank publishes it. What goes
///    wrong on any rank is thrown on all, and the checkpoints before are unharmed.
/// 3. ``begin(_:companions:removing:prunes:)`` copies what this rank writes and returns; ``save(_:companions:removing:prunes:)``
///    writes tensor by tensor, with one parameter in memory at most.
public final class CheckpointSaver {
    /// Bytes that a copy of what this rank writes takes.
    public let copyBytes: Int
    private let folder: CheckpointFolder
    private let model: Transformer
    private let optimizer: AdamW
    private let world: any Collective
    private let backend: any Backend
    private let plan: CheckpointPlan
    private let copyLimit: Int?
    private let old = OldCheckpoints()
    /// Told of the folder before this rank writes its first file: tests spoil it there.
    var willWrite: (@Sendable (_ folder: String) -> Void)?
    /// Most bytes that were live without a copy, as far as is known.
    private var trainingPeak = 0
    private var hasCopied = false
    /// Host memory for copies.
    private let memory: CachingAllocator

    /// The saver of a rank. Every rank makes it, at the same place among its operations: they tell each other what they
    /// hold.
    ///
    /// - Parameters:
    ///   - world: All ranks of the run, which exchange host memory here; `nil` for this one alone.
    ///   - copyLimit: Most bytes that the copy on this rank may take; where it would be more on any, all write in the
    ///     foreground. `nil` for what memory there is.
    ///   - maximumShardSize: Bytes of tensor data per file.
    /// - Throws: ``CollectiveError``; ``TrainingCheckpointError/incomplete(tensor:)``.
    public init(
        _ folder: CheckpointFolder, _ model: Transformer, _ optimizer: AdamW, over world: (any Collective)? = nil,
        copyLimit: Int? = nil, maximumShardSize: Int = 5_000_000_000, backend: any Backend
    ) throws {
        let world = world ?? SingleRank()
        self.folder = folder
        self.model = model
        self.optimizer = optimizer
        self.world = world
        self.backend = backend
        self.copyLimit = copyLimit
        let held = try world.collected(HeldTensors(model, optimizer).text).enumerated().map { rank, text in
            guard let held = HeldTensors(text: text) else {
                throw TrainingCheckpointError.incomplete(tensor: "what rank \(rank) holds")
            }
            return held
        }
        let map = HubTensorMap(
            family: nil, configuration: model.configuration, further: model.furtherParameters)
        let plan = try CheckpointPlan(
            held, order: map.written.map(\.hubName), maximumShardSize: maximumShardSize)
        self.plan = plan
        let rank = world.rank
        let specs =
            plan.weights.filter { $0.writer == rank }.map(\.spec)
            + plan.states.filter { $0.writer == rank }.map(\.spec)
        copyBytes = specs.reduce(0) { $0 + $1.dtype.byteCount(elements: $1.shape.reduce(1, *)) }
        memory = backend.allocator.device == .cpu ? backend.allocator : CachingAllocator()
    }

    /// Saves a step and returns when it is safe.
    ///
    /// Every rank calls it with the same state.
    ///
    /// - Parameters:
    ///   - companions: Files that belong to the model, by name; those of the first rank count.
    ///   - removing: Steps whose checkpoints go as well once the new one is safe.
    ///   - prunes: Whether those beyond ``CheckpointFolder/keep`` are removed.
    /// - Throws: ``NonFiniteWeightsError`` on all ranks for weights that are not numbers on any; what
    ///   ``BackgroundSave/finish(waitsForRemoval:)`` throws.
    public func save(
        _ state: TrainingState, companions: [String: FileContents] = [:], removing: [Int] = [], prunes: Bool = true
    ) throws {
        try start(state, companions, BackgroundSave.Cleanup(steps: removing, prunes: prunes), copies: false).finish()
    }

    /// Copies a step and begins to write it. Ends with ``BackgroundSave/finish(waitsForRemoval:)``, before the next one begins.
    ///
    /// Every rank calls it with the same state; parameters as in ``save(_:companions:removing:prunes:)``. Where a rank has
    /// no memory for the copy, all is written before this returns.
    ///
    /// - Throws: ``NonFiniteWeightsError``, ``RankFailures``, ``FileError``, ``CollectiveError``.
    public func begin(
        _ state: TrainingState, companions: [String: FileContents] = [:], removing: [Int] = [], prunes: Bool = true
    ) throws -> BackgroundSave {
        try start(state, companions, BackgroundSave.Cleanup(steps: removing, prunes: prunes), copies: true)
    }

    private func start(
        _ state: TrainingState, _ companions: [String: FileContents], _ cleanup: BackgroundSave.Cleanup, copies: Bool
    ) throws -> BackgroundSave {
        let began = ContinuousClock.now
        try checkFinite(step: state.step)
        let target = folder.folder(step: state.step)
        let task = "saving '\(target)'"
        let staging = try world.agree(on: task) { try makeStaging(target) }
        let path = try world.first(staging?.path) ?? ""
        let texts = world.rank == 0 ? self.texts(state) : [:]
        let companions = world.rank == 0 ? companions : [:]
        let copy = copies ? try reserve() : nil
        let tensors: @Sendable () throws -> [String: FileDigest]
        if let copy {
            try fill(copy, task)
            tensors = { [plan, willWrite, rank = world.rank] in
                willWrite?(path)
                return try copy.write(plan, rank: rank, toFolder: path)
            }
        } else {
            let files = try stream(toFolder: path, task)
            tensors = { try files.get() }
        }
        return BackgroundSave(
            step: state.step, in: folder, over: world, staging: staging, cleanup: cleanup,
            old: old, copiedBytes: copy == nil ? nil : copyBytes, began: began
        ) {
            var digests = try tensors()
            digests.merge(try CompanionFiles.write(companions, to: path)) { first, _ in first }
            for (name, text) in texts { digests[name] = try AtomicFile.write(text, to: "\(path)/\(name)") }
            return digests
        }
    }

    private func checkFinite(step: Int) throws {
        let place = try world.agree(on: "saving step \(step)") { try model.firstNonFiniteWeight(backend: backend) }
        if let first = try world.first(place) { throw NonFiniteWeightsError(step: step, place: first) }
    }

    private func makeStaging(_ target: String) throws -> StagingFolder? {
        guard world.rank == 0 else { return nil }
        try RunFolder.create(folder.path)
        // A killed run may have been saving another step: each leaves as much as a checkpoint.
        _ = try? AbandonedFiles.remove(in: folder.path, prefix: "step-")
        return try StagingFolder(for: target)
    }

    /// The files that say what the others are.
    private func texts(_ state: TrainingState) -> [String: String] {
        var texts = ["config.json": model.configuration.json(), "state.txt": state.text]
        if let index = plan.weightFiles.index { texts[index.name] = index.text }
        if let pieces = plan.pieceIndex(ranks: world.size) {
            // Several files hold pieces of one tensor, which the usual index cannot say.
            texts[StatePieceIndex.fileName] = pieces.json
        } else if let index = plan.stateFiles.index {
            texts[index.name] = index.text
        }
        return texts
    }

    /// Memory for the copy on every rank, or `nil` on all.
    private func reserve() throws -> CheckpointCopy? {
        let copy = hasRoom() ? try? CheckpointCopy(plan, rank: world.rank, memory) : nil
        guard try world.largest([copy == nil ? 1 : 0])[0] == 0 else { return nil }
        hasCopied = true
        return copy
    }

    /// Whether the copy fits beside what training has taken at its peak: the next steps must not run out of memory for it.
    private func hasRoom() -> Bool {
        guard copyBytes <= copyLimit ?? .max else { return false }
        let share = CachingAllocator.physicalMemory / World.ranksOnThisMachine
        guard memory === backend.allocator else { return copyBytes <= share / 2 }
        trainingPeak = max(trainingPeak, memory.statistics.totalPeak - (hasCopied ? copyBytes : 0))
        return trainingPeak + copyBytes <= memory.limit ?? share
    }

    /// Copies what this rank writes.
    private func fill(_ copy: CheckpointCopy, _ task: String) throws {
        let gathering = try world.agree(on: task) {
            try WeightGathering(plan, model.store, over: world, memory, backend: backend)
        }
        var failure: (any Error)?
        for (place, weights) in plan.weights.enumerated() {
            failure = try gathering(weights, into: copy.weights[place]) ?? failure
        }
        try world.agree(on: task) {
            if let failure { throw failure }
            try forEachOwnState { place, piece in
                guard let target = copy.states[place] else { return }
                var first = 0
                try backend.forEachPiece(of: piece) { bytes in
                    guard !bytes.isEmpty else { return }
                    UnsafeMutableRawBufferPointer(start: target.rawPointer + first, count: bytes.count)
                        .copyMemory(from: bytes)
                    first += bytes.count
                }
            }
        }
    }

    /// Writes what this rank writes, tensor by tensor, and takes its part in what the others do.
    private func stream(toFolder path: String, _ task: String) throws -> Result<[String: FileDigest], any Error> {
        let rank = world.rank
        let (gathering, buffer) = try world.agree(on: task) {
            let divided = plan.weights.filter { $0.writer == rank && $0.parts.count > 1 }
            let most = divided.map { $0.type.byteCount(elements: $0.shape.reduce(1, *)) }.max() ?? 0
            return (
                try WeightGathering(plan, model.store, over: world, memory, backend: backend),
                try memory.empty(Shape(most), .u8, .checkpoint)
            )
        }
        willWrite?(path)
        let sink = ShardSink(plan.weightFiles, writer: rank, folder: path)
        for weights in plan.weights {
            guard weights.writer == rank, weights.parts.count == 1, weights.parts[0].rank == rank else {
                let isOwn = weights.writer == rank
                let whole = Tensor(
                    storage: buffer.storage, shape: Shape(isOwn ? weights.shape.reduce(1, *) : 0), dtype: weights.type)
                if let failure = try gathering(weights, into: isOwn ? whole : nil) { sink.fail(failure) }
                guard isOwn else { continue }
                sink.append(
                    UnsafeRawBufferPointer(
                        start: whole.rawPointer, count: whole.dtype.byteCount(elements: whole.count)),
                    to: weights.name)
                continue
            }
            do {
                try gathering.withOwn(weights) { held in
                    try backend.forEachPiece(of: held) { sink.append($0, to: weights.name) }
                }
            } catch {
                sink.fail(error)
            }
        }
        return Result {
            var digests = try sink.finish()
            let sink = ShardSink(plan.stateFiles, writer: rank, folder: path)
            try forEachOwnState { place, piece in
                try backend.forEachPiece(of: piece) { sink.append($0, to: plan.states[place].name) }
            }
            digests.merge(try sink.finish()) { first, _ in first }
            return digests
        }
    }

    /// Lends the pieces of state that this rank writes, in the order of the plan.
    private func forEachOwnState(_ body: (_ place: Int, _ piece: Tensor) throws -> Void) rethrows {
        var own: [CheckpointPlan.StateName: Tensor] = [:]
        for piece in optimizer.statePieces() {
            own[CheckpointPlan.StateName(name: piece.name, first: piece.elements.lowerBound)] = piece.tensor
        }
        for (place, state) in plan.states.enumerated() where state.writer == world.rank {
            let name = CheckpointPlan.StateName(name: state.name, first: state.piece.elements.lowerBound)
            guard let tensor = own[name] else { preconditionFailure("the plan knows what is held") }
            try body(place, tensor)
        }
    }
}
