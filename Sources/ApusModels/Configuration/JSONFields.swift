import ApusTensor

/// The keys of one JSON object, read with their types checked; errors name the key from the top of the file.
struct JSONFields {
    let path: String
    /// What comes before a key in an error: `feed_forward[3].`, or nothing.
    let scope: String
    let values: [String: JSONValue]

    init(_ value: JSONValue, path: String, scope: String = "") throws(ModelConfigurationError) {
        guard case .object(let values) = value else {
            if scope.isEmpty { throw .malformed(path: path, reason: "is \(value.shown), not a JSON object") }
            throw .wrongValue(path: path, key: String(scope.dropLast()), found: value.shown, wanted: "an object")
        }
        self.path = path
        self.scope = scope
        self.values = values
    }

    /// Fails on the first key, in alphabetic order, that is not in `known`.
    func refuseUnknown(known: [String]) throws(ModelConfigurationError) {
        for key in values.keys.sorted() where !known.contains(key) {
            throw .unknownKey(
                path: path, key: scope + key, nearest: nearestName(to: key, among: known).map { scope + $0 })
        }
    }

    /// Fails on the first of `keys` that is not there, be it as null.
    func requirePresent(_ keys: String...) throws(ModelConfigurationError) {
        for key in keys where values[key] == nil { throw missing(key) }
    }

    /// The value under `key`, null counting as none.
    func value(_ key: String) -> JSONValue? {
        let value = values[key]
        return value == .null ? nil : value
    }

    /// The value under whichever of `keys` is there; two that disagree are an error.
    func value(anyOf keys: [String]) throws(ModelConfigurationError) -> (key: String, value: JSONValue)? {
        var found: (key: String, value: JSONValue)?
        for key in keys {
            guard let value = value(key) else { continue }
            if let found, found.value != value {
                throw wrong(key, value, "the same as \(quoted(scope + found.key)), \(found.value.shown), or left out")
            }
            found = found ?? (key, value)
        }
        return found
    }

    func missing(_ key: String) -> ModelConfigurationError { .missingKey(path: path, key: scope + key) }

    func wrong(_ key: String, _ found: JSONValue, _ wanted: String) -> ModelConfigurationError {
        .wrongValue(path: path, key: scope + key, found: found.shown, wanted: wanted)
    }

    func unsupported(_ key: String, _ found: JSONValue, _ reason: String) -> ModelConfigurationError {
        .unsupported(path: path, key: scope + key, found: found.shown, reason: reason)
    }

    // MARK: Typed values; a `default` stands in for an absent key or null, and without one that is an error

    func integer(
        _ keys: String..., default standard: Int? = nil, from least: Int = 0, to most: Int = .max
    ) throws(ModelConfigurationError) -> Int {
        guard let (key, value) = try value(anyOf: keys) else {
            guard let standard else { throw missing(keys[0]) }
            return standard
        }
        guard case .integer(let integer) = value, integer >= least else {
            throw wrong(key, value, "a whole number from \(least)")
        }
        guard integer <= most else { throw wrong(key, value, "a whole number of at most \(most)") }
        return integer
    }

    func number(_ key: String, default standard: Double? = nil) throws(ModelConfigurationError) -> Double {
        switch value(key) {
        case .number(let number)?: return number
        case .integer(let integer)?: return Double(integer)
        case let other?: throw wrong(key, other, "a number")
        case nil:
            guard let standard else { throw missing(key) }
            return standard
        }
    }

    func float(_ key: String, default standard: Float? = nil) throws(ModelConfigurationError) -> Float {
        let number = try number(key, default: standard.map(Double.init))
        guard Float(number).isFinite else { throw wrong(key, .number(number), "a number that single precision holds") }
        return Float(number)
    }

    func optionalFloat(_ key: String) throws(ModelConfigurationError) -> Float? {
        value(key) == nil ? nil : try float(key)
    }

    func optionalInteger(_ key: String, from least: Int = 0) throws(ModelConfigurationError) -> Int? {
        value(key) == nil ? nil : try integer(key, from: least)
    }

    func bool(_ key: String, default standard: Bool? = nil) throws(ModelConfigurationError) -> Bool {
        switch value(key) {
        case .bool(let bool)?: return bool
        case let other?: throw wrong(key, other, "true or false")
        case nil:
            guard let standard else { throw missing(key) }
            return standard
        }
    }

    func string(_ key: String) throws(ModelConfigurationError) -> String {
        switch value(key) {
        case .string(let text)?: return text
        case let other?: throw wrong(key, other, "a string")
        case nil: throw missing(key)
        }
    }

    func choice<Choice: RawRepresentable & CaseIterable>(_ key: String) throws(ModelConfigurationError) -> Choice
    where Choice.RawValue == String {
        let text = try string(key)
        guard let choice = Choice(rawValue: text) else {
            let names = Choice.allCases.map { quoted($0.rawValue) }.joined(separator: ", ")
            throw wrong(key, .string(text), "one of \(names)")
        }
        return choice
    }

    func array(_ key: String) throws(ModelConfigurationError) -> [JSONValue] {
        switch value(key) {
        case .array(let elements)?: return elements
        case let other?: throw wrong(key, other, "a list")
        case nil: throw missing(key)
        }
    }

    func object(_ key: String) throws(ModelConfigurationError) -> JSONFields {
        guard let value = value(key) else { throw missing(key) }
        return try JSONFields(value, path: path, scope: "\(scope)\(key).")
    }
}
