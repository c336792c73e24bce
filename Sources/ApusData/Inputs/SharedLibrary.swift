import Glibc

/// A library of the system, found when it is first needed: what only some files need is no dependency of the build.
struct SharedLibrary: @unchecked Sendable {
    // Sendable: a handle is never closed, and looking up symbols is safe from any thread.
    private let handle: UnsafeMutableRawPointer

    /// Loads a library by its file name; `nil` if it is not installed.
    init?(_ name: String) {
        guard let handle = dlopen(name, RTLD_NOW | RTLD_LOCAL) else { return nil }
        self.handle = handle
    }

    /// The function called `name`, whose C type is `Function`; `nil` if the library has none.
    func function<Function>(_ name: String, as type: Function.Type) -> Function? {
        dlsym(handle, name).map { unsafeBitCast($0, to: type) }
    }
}
