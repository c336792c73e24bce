import ApusTensor

extension JSONScanner {
    /// An object whose values are all strings; a repeated key is a fault.
    mutating func stringMap() throws(Fault) -> [String: String] {
        var map: [String: String] = [:]
        var object = try beginObject()
        while let key = try nextKey(in: &object) {
            if map.updateValue(try string("a string as the value of \(quoted(key))"), forKey: key) != nil {
                throw fault("the key \(quoted(key)) is there twice")
            }
        }
        return map
    }

    /// An array of at most `limit` whole numbers.
    ///
    /// - Parameter wanted: what one number is, for messages.
    mutating func wholeNumbers(_ wanted: String, atMost limit: Int) throws(Fault) -> [Int] {
        var numbers: [Int] = []
        var array = try beginArray()
        while try nextElement(in: &array) {
            if numbers.count == limit { throw fault("more than \(limit) numbers where \(wanted) is listed") }
            numbers.append(try wholeNumber(wanted))
        }
        return numbers
    }
}
