import ApusTensor

/// Elements of a stored tensor of one of the sources.
struct StoredRun: Sendable, Equatable {
    /// Which source, in their order.
    let source: Int
    /// The tensor's name in Apus.
    let name: String
    /// Its elements, counted in row-major order.
    let elements: Range<Int>
}

/// Where the elements of a tensor of a new model come from.
enum TensorOrigin: Sendable, Equatable {
    /// Stored elements one run after the other, their bits kept.
    case runs([StoredRun])
    /// Stored elements plus normal noise, its deviation `relative` to the root mean square of the whole tensor.
    case noisy(StoredRun, relative: Float, stream: RandomStream)
    /// `share` of the first and the rest of the second, summed in `f32`.
    case average(StoredRun, StoredRun, share: Float)
    /// Normal draws around 0.
    case drawn(deviation: Float, stream: RandomStream)
    /// The same value everywhere.
    case constant(Float)
}
