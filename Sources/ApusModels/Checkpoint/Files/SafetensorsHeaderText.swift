import ApusTensor

/// The table of a safetensors file as its JSON says it, not yet held against the data.
struct SafetensorsHeaderText {
    /// The three fields of a tensor; nil where the text leaves one out.
    struct Fields {
        var dtype: String?
        var shape: [Int]?
        var offsets: [Int]?
    }

    private(set) var tensors: [(name: String, fields: Fields)] = []
    private(set) var metadata: [String: String] = [:]

    /// Reads the one object that starts at the scanner's position and must be all there is.
    init(_ scanner: inout JSONScanner) throws(JSONScanner.Fault) {
        var names: Set<String> = []
        var table = try scanner.beginObject()
        while let name = try scanner.nextKey(in: &table) {
            if !names.insert(name).inserted { throw scanner.fault("the name \(quoted(name)) is there twice") }
            if name == "__metadata__" {
                metadata = try scanner.stringMap()
            } else {
                tensors.append((name, try Fields(&scanner)))
            }
        }
        try scanner.end()
    }
}

extension SafetensorsHeaderText.Fields {
    fileprivate init(_ scanner: inout JSONScanner) throws(JSONScanner.Fault) {
        self.init()
        var object = try scanner.beginObject()
        while let key = try scanner.nextKey(in: &object) {
            switch key {
            case "dtype" where dtype == nil: dtype = try scanner.string()
            case "shape" where shape == nil:
                shape = try scanner.wholeNumbers("a dimension", atMost: SafetensorsHeader.maximumRank)
            case "data_offsets" where offsets == nil:
                offsets = try scanner.wholeNumbers("a data offset", atMost: 2)
            case "dtype", "shape", "data_offsets": throw scanner.fault("'\(key)' is there twice")
            default: throw scanner.fault("unknown key \(quoted(key)) in the entry of a tensor")
            }
        }
    }
}
