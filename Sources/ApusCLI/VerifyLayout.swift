import ApusCollectives
import ApusParallel
import ApusTraining
import ArgumentParser

/// `apus verify layout`: the same recipe on one rank and on a layout.
struct VerifyLayout: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "layout", abstract: "Train the same steps on one rank and on a layout of ranks, and compare.",
        discussion: """
            Compares losses, every parameter's gradient, and the weights after three steps of plain descent and of AdamW, \
            with the routing of the one rank replayed; then lists each routing choice that differs without replay. Ends \
            with status 1 when anything lies beyond its tolerance; nothing is written.

            Started alone it runs all ranks in this process. Under mpirun it runs on the ranks that there are.

            Example:
              apus verify layout Recipes/quickstart.yaml --set data.path=book.txt --tensor 2 --expert 2 --data 2
              mpirun -n 4 apus verify layout recipe.yaml --tensor 2 --expert 2 --zero 2 --checkpointing
              mpirun -n 2 apus verify layout recipe.yaml --expert 2 --data 2 --device cuda
            """)

    @Argument(help: "A recipe.")
    var recipe: String

    @Option(name: .long, help: "Override a key: dotted.key=value. May be given several times.")
    var set: [String] = []

    @Option(help: "Ranks that share each matrix, instead of layout.tensor.")
    var tensor: Int?

    @Option(help: "Ranks that divide the experts of a layer, instead of layout.expert.")
    var expert: Int?

    @Option(help: "Ranks with different sequences, times --tensor ranks in all, instead of layout.data.")
    var data: Int?

    @Option(help: "0, 1 or 2: what ranks with the same parameters divide, instead of layout.zero.")
    var zero: Int?

    @Flag(inversion: .prefixedNo, help: "Blocks run again in backward (training.checkpointing).")
    var checkpointing: Bool?

    @Flag(inversion: .prefixedNo, help: "Duplicate-token dropping (layout.drop_duplicates).")
    var dtd: Bool?

    @Flag(inversion: .prefixedNo, help: "Communication-aware checkpointing (layout.keep_collectives).")
    var cac: Bool?

    @Option(help: "Where the ranks compute: cpu, or cuda, a GPU for each, under mpirun.")
    var device = DeviceChoice.cpu

    @Option(help: "Rows of the table: the worst parameters.")
    var rows = 10

    @Flag(help: "Print one JSON object.")
    var json = false

    func validate() throws {
        try requireSizes(("rows", rows))
        if device == .automatic { throw ValidationError("--device is auto; name where to compute: cpu or cuda") }
    }

    func run() throws {
        let settings = ["training.precision=f32"] + set + overrides
        let recipe = try World.prepare { try Recipe(contentsOf: self.recipe, overrides: settings) }
        let agrees = try World.run(timeout: .seconds(recipe.parallel.timeout)) { world in
            // Ranks that are threads of this process have the cores between them.
            let threads = world.size > 1 ? recipe.training.threads ?? World.threadsPerRank : 1
            let found = try findings(of: recipe, on: world, threads: threads)
            if world.rank == 0 { Console.line(json ? "\(LayoutReport(found).object)" : LayoutReport(found).text(rows)) }
            return found.agrees
        }
        if !agrees { throw ExitCode.failure }
    }

    private func findings(of recipe: Recipe, on world: any Collective, threads: Int) throws -> LayoutFindings {
        guard device == .cuda else { return try LayoutVerification.run(recipe, on: world, threads: threads) }
        guard world.size > 1 else {
            throw CommandError("--device cuda needs a process for each GPU; start them with mpirun -n N")
        }
        let backend = try device.backend(
            threads: threads, memoryLimit: recipe.training.memoryLimit, deterministic: recipe.training.deterministic)
        return try device.exchanging(backend, over: world) {
            try LayoutVerification.run(recipe, on: $0, threads: threads, device: backend)
        }
    }

    private var overrides: [String] {
        let values: [(String, String?)] = [
            ("layout.tensor", tensor.map(String.init)), ("layout.expert", expert.map(String.init)),
            ("layout.data", data.map(String.init)), ("layout.zero", zero.map(String.init)),
            ("training.checkpointing", checkpointing.map { "\($0)" }), ("layout.drop_duplicates", dtd.map { "\($0)" }),
            ("layout.keep_collectives", cac.map { "\($0)" }),
        ]
        return values.compactMap { key, value in value.map { "\(key)=\($0)" } }
    }
}
