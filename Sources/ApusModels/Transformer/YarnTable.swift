import ApusKernels
import ApusTensor
import Glibc

// Shape letters: R elements that are turned.

extension YarnConfiguration {
    /// Cosines and sines of the stretched angles, with YaRN's amplitude; formed on the host, once for a model.
    func table(positions: Int, width: Int, theta: Double, _ backend: any Backend) throws -> RotaryTable {
        let frequencies = self.frequencies(width: width, theta: theta)
        func values(_ wave: (Double) -> Double) -> [Float] {
            (0..<positions).flatMap { position in
                frequencies.map { Float(amplitude * wave(Double(position) * $0)) }
            }
        }
        let shape = Shape(positions, width / 2)
        return RotaryTable(
            cosines: try backend.tensor(values { cos($0) }, shape, .parameters),
            sines: try backend.tensor(values { sin($0) }, shape, .parameters))
    }
}
