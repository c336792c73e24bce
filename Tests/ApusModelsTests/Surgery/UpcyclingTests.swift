import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusModels

/// Mixtures that begin as dense models.
@Suite struct UpcyclingTests {
    private let fixture: SurgeryFixture

    init() throws { fixture = try SurgeryFixture() }

    private static let routers = [
        RouterConfiguration(renormalizes: true), RouterConfiguration(scoring: .topKThenSoftmax),
        RouterConfiguration(scoring: .sigmoid, renormalizes: true, biasRate: 0.01),
    ]

    @Test(arguments: routers, [1, 3])
    func `the new model computes what the dense one does`(_ router: RouterConfiguration, _ choices: Int) throws {
        let dense = try fixture.store(SurgeryFixture.dense(), as: "dense")
        let upcycling = Upcycling(experts: 5, choices: choices, layers: .all, router: router)
        let made = try fixture.write(upcycling.surgery(of: dense), as: "moe")
        #expect(made.configuration.configuration.mixtureLayers == [0, 1, 2, 3])
        let (expected, found) = (try fixture.logits(dense), try fixture.logits(made))
        expectClose(found, expected.map(Double.init), within: 1e-5, "logits")
    }

    @Test func `plain weights compute something else`() throws {
        let dense = try fixture.store(SurgeryFixture.dense(), as: "dense")
        let upcycling = Upcycling(experts: 5, router: RouterConfiguration())
        let made = try fixture.write(upcycling.surgery(of: dense), as: "moe")
        #expect(relativeError(try fixture.logits(made), try fixture.logits(dense)) > 1e-3)
    }

    @Test(arguments: [
        (Upcycling.Layers.everyOther, [1, 3]), (.lastHalf, [2, 3]), (.all, [0, 1, 2, 3]), (.listed([2, 0]), [0, 2]),
    ])
    func `the chosen layers become mixtures, and all else keeps its bits`(
        _ layers: Upcycling.Layers, _ expected: [Int]
    ) throws {
        var configuration = SurgeryFixture.dense([14, 6, 9, 12])
        (configuration.activation, configuration.norm, configuration.tiedEmbeddings) = (.gelu, .layer, true)
        let dense = try fixture.store(configuration, as: "dense", .bf16, maximumShardSize: 2000)
        let upcycling = Upcycling(experts: 3, layers: layers, seed: 9, losses: RouterLosses(balance: 0.5, z: 0.25))
        let made = try fixture.write(upcycling.surgery(of: dense), as: "moe")
        let model = made.configuration.configuration
        #expect(model.mixtureLayers == expected && made.storedType == .bf16)
        for layer in expected {
            let moe = try #require(model.moe(layer: layer))
            guard case .dense(let width) = configuration.feedForward[layer] else { continue }
            #expect(moe.width == width && moe.experts == 3 && moe.choices == 2 && moe.activation == .gelu)
            #expect(moe.losses.balance == 0.5 && moe.losses.z == 0.25 && moe.router.renormalizes)
            for expert in 0..<3 {
                for matrix in ["up_proj", "down_proj"] {
                    let prefix = "model.layers.\(layer).mlp"
                    let copy = try made.values("\(prefix).experts.\(expert).\(matrix).weight")
                    #expect(try copy == dense.values("\(prefix).\(matrix).weight"))
                }
            }
        }
        for name in try dense.names() where try made.names().contains(name) {
            #expect(try made.values(name) == dense.values(name), "\(name)")
        }
        // A router begins as it would in a model of this kind that is trained from the same seed.
        let fresh = try Transformer(model, backend: fixture.backend, precision: .bf16, isTrained: false)
        try fresh.store.initialize(seed: 9, backend: fixture.backend)
        let name = "model.layers.\(expected[0]).mlp.gate.weight"
        #expect(try made.values(name) == #require(fresh.store[name]).acquire(on: .cpu).floats())
    }

    @Test func `noise is of the size asked for, another for each expert, and follows from the seed`() throws {
        var configuration = SurgeryFixture.dense([256])
        configuration.width = 64
        let dense = try fixture.store(configuration, as: "dense")
        func copies(_ seed: UInt64, _ name: String) throws -> [[Float]] {
            let upcycling = Upcycling(experts: 3, layers: .all, noise: 0.1, seed: seed)
            let made = try fixture.write(upcycling.surgery(of: dense), as: name)
            return try (0..<3).map { try made.values("model.layers.0.mlp.experts.\($0).up_proj.weight") }
        }
        let original = try dense.values("model.layers.0.mlp.up_proj.weight")
        let (first, again, other) = (try copies(1, "a"), try copies(1, "b"), try copies(2, "c"))
        #expect(first == again && first[0] != other[0] && first[0] != first[1] && first[1] != first[2])
        func rootMeanSquare(_ values: [Double]) -> Double {
            (values.reduce(0) { $0 + $1 * $1 } / Double(values.count)).squareRoot()
        }
        let scale = rootMeanSquare(original.map(Double.init))
        for copy in first {
            let noise = rootMeanSquare(zip(copy, original).map { Double($0) - Double($1) })
            #expect(abs(noise / (0.1 * scale) - 1) < 0.03, "\(noise / scale)")
        }
        // The gate's noise is not the other matrix's.
        let made = try ModelFolder(fixture.scratch.file("a"))
        let gate = try made.values("model.layers.0.mlp.experts.0.gate_proj.weight")
        let plain = try dense.values("model.layers.0.mlp.gate_proj.weight")
        let gap = zip(zip(gate, plain), zip(first[0], original)).map { ($0.0 - $0.1) - ($1.0 - $1.1) }
        #expect(gap.contains { abs($0) > 1e-4 })
    }

    @Test func `layers that cannot be mixtures are named before anything is written`() throws {
        var configuration = SurgeryFixture.dense()
        configuration.feedForward[1] = .moe(MoEConfiguration(experts: 4, choices: 2, width: 14))
        let folder = try fixture.store(configuration, as: "mixed")
        func error(_ layers: Upcycling.Layers, noise: Float = 0) -> SurgeryError? {
            surgeryError { _ = try Upcycling(experts: 4, layers: layers, noise: noise).surgery(of: folder) }
        }
        #expect(error(.listed([1])) == .notDense(folder: folder.path, layer: 1, experts: 4))
        #expect(error(.listed([4])) == .noSuchLayer(folder: folder.path, layer: 4, layers: 4))
        #expect(error(.all, noise: -1) == .wrongOption(name: "noise", found: "-1.0", wanted: "a number from 0"))
        #expect(error(.everyOther) == nil)
        let sparse = try fixture.store(SurgeryFixture.mixture(), as: "sparse")
        let none = surgeryError { _ = try Upcycling(experts: 4).surgery(of: sparse) }
        #expect(none == .nothingToUpcycle(folder: sparse.path, layers: 2))
        #expect(throws: ModelConfigurationError.self) { _ = try Upcycling(experts: 2, choices: 3).surgery(of: folder) }
    }

    @Test func `a name that is taken is refused, and folders above a new one are made`() throws {
        let dense = try fixture.store(SurgeryFixture.dense(), as: "dense")
        let surgery = try Upcycling(experts: 4).surgery(of: dense)
        _ = try fixture.write(surgery, as: "moe")
        let path = fixture.scratch.file("moe")
        #expect(throws: FileError.alreadyExists(path: path)) {
            _ = try surgery.write(to: path, backend: fixture.backend)
        }
        #expect(try fixture.scratch.names.sorted() == ["dense", "moe"])
        _ = try fixture.write(surgery, as: "further/down/moe")
        #expect(try fixture.scratch.names.sorted() == ["dense", "further", "moe"])
    }
}
