/// Writes the few forms of protocol-buffer fields that TensorBoard's events are made of.
///
/// Format: the protocol-buffer wire format; a field is its number and kind as a varint, then its value.
struct ProtobufWriter {
    /// What has been written.
    private(set) var bytes: [UInt8] = []

    /// An `int64` or an enumeration.
    mutating func integer(_ field: Int, _ value: Int) {
        key(field, kind: 0)
        varint(UInt64(bitPattern: Int64(value)))
    }

    /// A `double`.
    mutating func double(_ field: Int, _ value: Double) {
        key(field, kind: 1)
        littleEndian(value.bitPattern)
    }

    /// A `float`.
    mutating func float(_ field: Int, _ value: Float) {
        key(field, kind: 5)
        littleEndian(value.bitPattern)
    }

    /// A `string`.
    mutating func string(_ field: Int, _ text: String) { delimited(field, Array(text.utf8)) }

    /// A packed `repeated double`.
    mutating func doubles(_ field: Int, _ values: [Double]) {
        var packed = ProtobufWriter()
        for value in values { packed.littleEndian(value.bitPattern) }
        delimited(field, packed.bytes)
    }

    /// A message inside this one.
    mutating func message(_ field: Int, _ write: (inout ProtobufWriter) -> Void) {
        var inner = ProtobufWriter()
        write(&inner)
        delimited(field, inner.bytes)
    }

    private mutating func delimited(_ field: Int, _ content: [UInt8]) {
        key(field, kind: 2)
        varint(UInt64(content.count))
        bytes += content
    }

    private mutating func key(_ field: Int, kind: UInt64) { varint(UInt64(field) << 3 | kind) }

    private mutating func varint(_ value: UInt64) {
        var rest = value
        while rest > 0x7F {
            bytes.append(UInt8(rest & 0x7F) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(rest))
    }

    private mutating func littleEndian(_ value: some FixedWidthInteger) {
        withUnsafeBytes(of: value.littleEndian) { bytes += $0 }
    }
}
