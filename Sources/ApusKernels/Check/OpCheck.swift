public import ApusTensor

/// One op held against its definition in double precision, over a small table of sizes.
///
/// The references share no code with any backend: plain loops, and central differences of the forward definition where
/// a gradient's closed form would only repeat the kernel. Inputs are drawn the same way every time.
public struct OpCheck: Sendable {
    /// The op, and what of it is checked: `rms-norm backward`.
    public let name: String
    /// The type of the activations.
    public let dtype: DType
    private let body: @Sendable (inout CheckProbe) throws -> Void

    /// A check of `name` in each of `types`.
    static func make(
        _ name: String, _ types: [DType] = [.f32, .bf16], _ body: @escaping @Sendable (inout CheckProbe) throws -> Void
    ) -> [OpCheck] {
        types.map { OpCheck(name: name, dtype: $0, body: body) }
    }

    private init(name: String, dtype: DType, body: @escaping @Sendable (inout CheckProbe) throws -> Void) {
        self.name = name
        self.dtype = dtype
        self.body = body
    }

    /// Every check of every op of ``Backend``.
    public static let all: [OpCheck] = [
        product, grouped, gatedExperts, blockSparse, norm, activation, rotary, attention, convolution, router, gate,
        routerPass,
        routerLoss,
        capacity,
        routedRows, decode, loss, distillation, dropout, elementwise, reduction, optimizer,
    ].flatMap { $0.flatMap { $0 } }

    /// The largest relative error, by norm, that `dtype` may show.
    public static func tolerance(_ dtype: DType) -> Double { dtype == .bf16 ? 1e-2 : 1e-5 }

    /// What a check found.
    public struct Outcome: Sendable {
        /// The op.
        public let name: String
        /// The type of the activations.
        public let dtype: DType
        /// Largest relative error by norm; infinite when a value is not finite or an integer is wrong.
        public let error: Double
        /// What is allowed.
        public let tolerance: Double
        /// Whether the op computes what it should.
        public var passes: Bool { error <= tolerance }

        /// What a check found that is not of a single op.
        public init(name: String, dtype: DType, error: Double, tolerance: Double) {
            self.name = name
            self.dtype = dtype
            self.error = error
            self.tolerance = tolerance
        }
    }

    /// Runs the op on `backend`.
    ///
    /// - Throws: what the backend throws when the device fails or memory runs out.
    public func run(on backend: any Backend) throws -> Outcome {
        var probe = CheckProbe(backend: backend, dtype: dtype)
        try body(&probe)
        if let failure = probe.failure { throw failure }
        return Outcome(name: name, dtype: dtype, error: probe.error, tolerance: OpCheck.tolerance(dtype))
    }
}
