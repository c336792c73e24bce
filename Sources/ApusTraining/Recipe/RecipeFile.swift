import Glibc

/// Reads a recipe's text from disk.
enum RecipeFile {
    /// Largest file read, in bytes: thousands of times a recipe, and little enough to refuse at once what is none.
    static let largestSize = 1 << 20

    static func text(of path: String) throws(Recipe.Error) -> String {
        // Not blocking: opening a pipe that nobody writes to would wait for ever.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            throw refusal(
                path, "cannot be read (\(String(cString: strerror(errno))))", "give the path of a recipe file")
        }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            throw refusal(path, "is no regular file", "give the path of a recipe file, such as Recipes/quickstart.yaml")
        }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        while bytes.count <= largestSize {
            let count = read(descriptor, &chunk, chunk.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else {
                throw refusal(
                    path, "cannot be read (\(String(cString: strerror(errno))))", "check the storage and try again")
            }
            if count == 0 { break }
            bytes += chunk[..<count]
        }
        guard bytes.count <= largestSize else { throw tooLarge(path) }
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw refusal(path, "is not UTF-8 text", "a recipe is a text file; save it as UTF-8")
        }
        return text
    }

    static func tooLarge(_ path: String) -> Recipe.Error {
        refusal(path, "has more than \(largestSize) bytes", "a recipe takes a few thousand; give the recipe's own path")
    }

    private static func refusal(_ path: String, _ reason: String, _ remedy: String) -> Recipe.Error {
        let log = FindingLog(file: path)
        log.add(.file, "", reason, remedy)
        return log.error
    }
}
