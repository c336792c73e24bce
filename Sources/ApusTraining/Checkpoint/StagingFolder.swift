import ApusTensor

/// The folder in which a checkpoint comes into being; gone with this value unless it is published.
final class StagingFolder {
    /// Where to write.
    let path: String
    private var directory: AtomicDirectory?

    /// Makes the folder beside `target`, the name that the checkpoint will have.
    ///
    /// - Throws: what `AtomicDirectory` throws.
    init(for target: String) throws(FileError) {
        let directory = try AtomicDirectory(path: target)
        path = directory.stagingPath
        self.directory = consume directory
    }

    /// Gives the checkpoint its name, in the place of one that has it already.
    ///
    /// - Throws: what `AtomicDirectory` throws; the folder is then gone.
    func publish() throws(FileError) {
        guard let directory = directory.take() else { preconditionFailure("a checkpoint is published once") }
        try directory.publish(.replace)
    }

    /// Removes it.
    func remove() { directory = nil }
}
