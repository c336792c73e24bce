import CApusDrivers
import Glibc
import Synchronization

@testable import ApusCUDA

/// A cuBLASLt that multiplies nothing, and notes what it was asked.
enum FakeProducts {
    struct State {
        /// Extents of the matrices of descriptors, by handle.
        var layouts: [Int: String] = [:]
        /// Transposed operands, by the handle of the product.
        var transposed: [Int: [Int32]] = [:]
        /// Addresses of biases, by the handle of the product.
        var biases: [Int: UInt64] = [:]
        /// The products that ran.
        var products: [String] = []
        /// How often an algorithm was asked for.
        var choices = 0
        var finds = true
        var version = 130_000
    }

    static let state = Mutex(State())
    static func reset() { state.withLock { $0 = State() } }

    static var table: apus_cublaslt_table {
        apus_cublaslt_table(
            create: { handle in
                handle.pointee = FakeDriver.handle()
                return 0
            },
            destroy: { _ in 0 },
            product_create: { product, _, _ in
                product.pointee = FakeDriver.handle()
                return 0
            },
            product_destroy: { _ in 0 },
            product_set: { product, key, value, _ in
                FakeProducts.state.withLock { state in
                    if key == APUS_BLAS_PRODUCT_BIAS {
                        state.biases[Int(bitPattern: product)] = value.load(as: UInt64.self)
                    } else if value.load(as: Int32.self) != 0 {
                        state.transposed[Int(bitPattern: product), default: []].append(key)
                    }
                }
                return 0
            },
            layout_create: { layout, type, rows, columns, stride in
                let created = FakeDriver.handle()
                layout.pointee = created
                FakeProducts.state.withLock {
                    $0.layouts[Int(bitPattern: created)] = "\(rows)x\(columns)/\(stride)t\(type)"
                }
                return 0
            },
            layout_destroy: { _ in 0 },
            preference_create: { preference in
                preference.pointee = FakeDriver.handle()
                return 0
            },
            preference_destroy: { _ in 0 },
            preference_set: { _, _, _, _ in 0 },
            choose: { _, _, _, _, _, _, _, _, choices, found in
                FakeProducts.state.withLock { $0.choices += 1 }
                found.pointee = FakeProducts.state.withLock { $0.finds } ? 1 : 0
                choices.pointee.status = 0
                choices.pointee.workspace_bytes = 1024
                return 0
            },
            multiply: { _, product, alpha, _, a, _, b, beta, _, _, _, d, _, _, _, _ in
                FakeProducts.state.withLock { state in
                    let flags = state.transposed[Int(bitPattern: product)] ?? []
                    func text(_ layout: OpaquePointer, _ key: Int32) -> String {
                        (state.layouts[Int(bitPattern: layout)] ?? "?") + (flags.contains(key) ? "^T" : "")
                    }
                    let beta = beta.load(as: Float.self)
                    let bias = state.biases[Int(bitPattern: product)].map { ", bias at \($0)" } ?? ""
                    state.products.append("\(text(a, 3)) \(text(b, 4)) -> \(text(d, 0)), beta \(beta)\(bias)")
                }
                return 0
            },
            version: { FakeProducts.state.withLock(\.version) },
            error_name: { _ in UnsafePointer(strdup("CUBLAS_STATUS_NOT_SUPPORTED")) })
    }
}
