import ApusModels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusTraining

/// The index of state pieces, and the plan of who writes what.
@Suite struct CheckpointPieceTests {
    private static let index = StatePieceIndex(files: [
        "optimizer-00001-of-00002.safetensors": [
            "first.a": StatePieceIndex.Piece(shape: [6, 4], shard: nil, elements: 0..<10),
            "second.\"b\"": StatePieceIndex.Piece(
                shape: [3, 8], shard: Shard(dimension: 1, range: 2..<5), elements: 1..<9),
        ],
        "optimizer-00002-of-00002.safetensors": [
            "first.a": StatePieceIndex.Piece(shape: [6, 4], shard: nil, elements: 10..<24)
        ],
    ])

    private static func read(_ text: String) throws(FileError) -> StatePieceIndex {
        try Array(text.utf8).withUnsafeBufferPointer { bytes throws(FileError) in
            try StatePieceIndex(UnsafeRawBufferPointer(bytes), path: "index")
        }
    }

    @Test func `what is written is read`() throws {
        #expect(try Self.read(Self.index.json) == Self.index)
        #expect(try Self.read("{\"version\": 1, \"files\": {}}").files.isEmpty)
    }

    @Test func `runs are where the elements are in the whole`() {
        let piece = StatePieceIndex.Piece(shape: [3, 8], shard: Shard(dimension: 1, range: 2..<5), elements: 1..<8)
        #expect(piece.runs.map(\.stored) == [0, 2, 5])
        #expect(piece.runs.map(\.whole) == [3..<5, 10..<13, 18..<20])
    }

    @Test(arguments: [
        ("\"shape\": [6, 4]", "\"elements\": [0, 0]", "elements [0, 0]"),
        ("\"shape\": [6, 4]", "\"elements\": [3, 25]", "elements [3, 25]"),
        ("\"shape\": [6, 4]", "\"elements\": [3]", "from and to"),
        ("\"shape\": [6, 4]", "\"elements\": [-3, 4]", "negative"),
        ("\"shape\": [4294967296, 4294967296]", "\"elements\": [0, 1]", "too many elements"),
        ("\"shape\": [0, 4]", "\"elements\": [0, 1]", "some of 0"),
        ("\"shape\": [6, 4], \"shard\": [2, 0, 1]", "\"elements\": [0, 1]", "shard [2, 0, 1]"),
        ("\"shape\": [6, 4], \"shard\": [1, 3, 3]", "\"elements\": [0, 1]", "shard [1, 3, 3]"),
        ("\"shape\": [6, 4], \"shard\": [1, 3, 5]", "\"elements\": [0, 1]", "shard [1, 3, 5]"),
        ("\"shape\": [6, 4], \"shape\": [6, 4]", "\"elements\": [0, 1]", "repeated"),
    ])
    func `what makes no sense is refused by name`(_ shape: String, _ elements: String, _ words: String) {
        let error = #expect(throws: FileError.self) {
            try Self.read("{\"version\": 1, \"files\": {\"f\": {\"first.a\": {\(shape), \(elements)}}}}")
        }
        #expect("\(error.map { "\($0)" } ?? "")".contains(words), "\(String(describing: error))")
    }

    @Test func `a file elsewhere is no file of the checkpoint`() {
        #expect(throws: FileError.unsafeFileName(path: "index", name: "../f")) {
            try Self.read("{\"version\": 1, \"files\": {\"../f\": {}}}")
        }
    }

    @Test func `damaged indexes are refused or make sense`() async {
        await #expect(processExitsWith: .success) {
            let mutator = Mutator([Array(CheckpointPieceTests.index.json.utf8)], seed: 8)
            MutationRun(mutator) { bytes in
                do throws(FileError) {
                    let index = try bytes.withUnsafeBufferPointer { bytes throws(FileError) in
                        try StatePieceIndex(UnsafeRawBufferPointer(bytes), path: "i")
                    }
                    for (file, pieces) in index.files {
                        guard isPlainFileName(file) else { return .wrong("file '\(file)'") }
                        for piece in pieces.values {
                            let shape = piece.shape
                            let count = shape.reduce(1, *)
                            // Runs of a shape that no parameter has are never asked for.
                            guard count < 1 << 20, shape.allSatisfy({ $0 < 1 << 20 }) else { continue }
                            let runs = piece.runs
                            guard runs.reduce(0, { $0 + $1.whole.count }) == piece.elements.count,
                                zip(runs, runs.dropFirst()).allSatisfy({ $0.whole.upperBound <= $1.whole.lowerBound }),
                                runs.last?.whole.upperBound ?? 0 <= count
                            else { return .wrong("\(piece)") }
                        }
                    }
                    return .accepted
                } catch {
                    if case .malformed = error { return .refused("malformed") }
                    if case .unsafeFileName = error { return .refused("unsafeFileName") }
                    return .wrong("\(error)")
                }
            }.expectSound(refused: ["malformed", "unsafeFileName"], each: 0.00001)
        }
    }

    // MARK: The plan

    private static func held(_ shard: Shard?, elements: Range<Int>) -> HeldTensors {
        HeldTensors(
            weights: [HeldTensors.Weights(name: "a", shape: [4, 6], shard: shard, type: .f32)],
            states: [HeldTensors.State(kind: "first", parameter: 0, elements: elements, type: .bf16)])
    }

    @Test func `what a rank holds reaches the others`() {
        let held = Self.held(Shard(dimension: 1, range: 2..<6), elements: 3..<9)
        #expect(HeldTensors(text: held.text) == held)
        #expect(HeldTensors(text: "nonsense") == nil)
    }

    @Test func `what is held twice is written once, and parts come from neighbours`() throws {
        let (left, right) = (Shard(dimension: 1, range: 0..<2), Shard(dimension: 1, range: 2..<6))
        let plan = try CheckpointPlan(
            [(left, 0..<8), (right, 0..<16), (left, 0..<8), (right, 0..<16)].map { Self.held($0, elements: $1) },
            order: ["a"])
        #expect(plan.states.count == 2)
        #expect(Set(plan.states.map(\.writer)).count == 2)
        let weights = plan.weights[0]
        #expect(weights.parts.map(\.rank) == (weights.writer < 2 ? [0, 1] : [2, 3]))
        #expect(weights.largestPart == 16)
    }

    @Test func `a tensor that is not whole on all ranks together is refused`() {
        let left = Shard(dimension: 1, range: 0..<2)
        #expect(throws: TrainingCheckpointError.incomplete(tensor: "first.a")) {
            try CheckpointPlan([Self.held(left, elements: 0..<8)], order: [])
        }
        #expect(throws: TrainingCheckpointError.incomplete(tensor: "first.a")) {
            try CheckpointPlan([Self.held(nil, elements: 0..<20)], order: [])
        }
        #expect(throws: TrainingCheckpointError.incomplete(tensor: "a")) {
            try CheckpointPlan(
                [Self.held(left, elements: 0..<8), Self.held(Shard(dimension: 1, range: 3..<6), elements: 0..<16)],
                order: [])
        }
    }
}
