public import ApusTensor
import Glibc

/// Names and places within the folder of a run.
public enum RunFolder {
    /// The folder that a command's CHECKPOINT means, its files read through and compared with its checksums: itself
    /// when it holds a model, else the newest checkpoint of the run that is whole.
    ///
    /// A model without ``CheckpointManifest`` (a Hugging Face folder) is taken as it is.
    ///
    /// - Returns: the folder, and what was wrong with newer checkpoints of the run, newest first.
    /// - Throws: ``CheckpointFileError/notFound(path:)`` when it is neither; what is wrong with the model, or with the
    ///   newest checkpoint of a run that has no whole one.
    public static func model(
        at path: String
    ) throws(CheckpointFileError) -> (folder: String, passedOver: [CheckpointFileError]) {
        let path = withoutTrailingSlashes(path)
        if try FolderTree.kind("\(path)/config.json") != nil {
            if try FolderTree.kind("\(path)/\(CheckpointManifest.fileName)") != nil {
                try CheckpointManifest(folder: path).verify(folder: path)
            }
            return (path, [])
        }
        let checkpoints = "\(path)/checkpoints"
        let (step, damaged) = newestGood(in: checkpoints)
        if let step { return (checkpointName(step: step, in: checkpoints), damaged) }
        if let newest = damaged.first { throw newest }
        if try FolderTree.kind(path) == nil { throw .notFound(path: path) }
        throw .notFound(path: "\(path)/config.json")
    }

    /// The newest checkpoint in a folder whose files pass their checksums, and what was wrong with newer ones, newest
    /// first. One without checksums does not pass.
    public static func newestGood(in folder: String) -> (step: Int?, damaged: [CheckpointFileError]) {
        var damaged: [CheckpointFileError] = []
        for step in checkpointSteps(in: folder).reversed() {
            let checkpoint = checkpointName(step: step, in: folder)
            do throws(CheckpointFileError) {
                try CheckpointManifest(folder: checkpoint).verify(folder: checkpoint)
                return (step, damaged)
            } catch {
                damaged.append(error)
            }
        }
        return (nil, damaged)
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
