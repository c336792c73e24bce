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
    /// - Throws: ``FileError/notFound(path:)`` when it is neither; what is wrong with the model, or with the
    ///   newest checkpoint of a run that has no whole one.
    public static func model(
        at path: String
    ) throws(FileError) -> (folder: String, passedOver: [FileError]) {
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
    public static func newestGood(in folder: String) -> (step: Int?, damaged: [FileError]) {
        var damaged: [FileError] = []
        for step in checkpointSteps(in: folder).reversed() {
            let checkpoint = checkpointName(step: step, in: folder)
            do throws(FileError) {
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
        return names.compactMap { name in
            // What is named otherwise than a checkpoint, a copy for instance, is none: it must not count as the newest,
            // nor as one of those to keep.
            guard name.hasPrefix("step-"), let step = Int(name.dropFirst(5)), step >= 0 else { return nil }
            return checkpointName(step: step, in: folder) == "\(folder)/\(name)" ? step : nil
        }.sorted()
    }

    /// The folder of the checkpoint of a step: its number has eight digits, so that names sort as numbers.
    public static func checkpointName(step: Int, in folder: String) -> String {
        let digits = String(step)
        return "\(folder)/step-" + String(repeating: "0", count: max(0, 8 - digits.count)) + digits
    }

    /// Makes a folder and those above it; one that is there, or a link to one, is left alone.
    ///
    /// - Throws: ``FileError/wrongKind(path:found:wanted:)`` for what is there and is no folder; what making one throws.
    public static func create(_ path: String) throws(FileError) {
        var status = stat()
        if stat(path, &status) == 0 {
            guard status.st_mode & S_IFMT != S_IFDIR else { return }
            throw .wrongKind(path: path, found: kindName(status.st_mode), wanted: "a folder, or a new name")
        }
        let parent = splitPath(path).folder
        if parent != path { try create(parent) }
        guard mkdir(path, 0o777) == 0 || errno == EEXIST else {
            throw systemFailure(path, "creating folder", folder: parent)
        }
    }

    /// Removes a folder and everything in it.
    public static func remove(_ path: String) throws(FileError) { try FolderTree.remove(path) }
}
