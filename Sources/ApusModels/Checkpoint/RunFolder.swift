import Glibc

/// Names and places within the folder of a run.
public enum RunFolder {
    /// The folder that a command's CHECKPOINT means: itself when it holds a model, else the newest checkpoint of the run.
    ///
    /// - Throws: ``CheckpointFileError/notFound(path:)`` when it is neither.
    public static func model(at path: String) throws(CheckpointFileError) -> String {
        let path = withoutTrailingSlashes(path)
        if try FolderTree.kind("\(path)/config.json") != nil { return path }
        let checkpoints = "\(path)/checkpoints"
        guard let newest = checkpointSteps(in: checkpoints).last else {
            if try FolderTree.kind(path) == nil { throw .notFound(path: path) }
            throw .notFound(path: "\(path)/config.json")
        }
        return checkpointName(step: newest, in: checkpoints)
    }

    /// The steps of the checkpoints in a folder, ascending; none when there is no such folder.
    public static func checkpointSteps(in folder: String) -> [Int] {
        let names = (try? FolderTree.names(in: folder)) ?? []
        return names.compactMap { $0.hasPrefix("step-") ? Int($0.dropFirst(5)) : nil }.sorted()
    }

    /// The folder of the checkpoint of a step: its number has eight digits, so that names sort as numbers.
    public static func checkpointName(step: Int, in folder: String) -> String {
        let digits = String(step)
        return "\(folder)/step-" + String(repeating: "0", count: max(0, 8 - digits.count)) + digits
    }

    /// Makes a folder and those above it; one that is there is left alone.
    public static func create(_ path: String) throws(CheckpointFileError) {
        guard try FolderTree.kind(path) == nil else { return }
        let parent = splitPath(path).folder
        if parent != path { try create(parent) }
        guard mkdir(path, 0o777) == 0 || errno == EEXIST else {
            throw systemFailure(path, "creating folder", folder: parent)
        }
    }

    /// Removes a folder and everything in it.
    public static func remove(_ path: String) throws(CheckpointFileError) { try FolderTree.remove(path) }
}
