import ApusTestSupport
import Foundation

/// A JSON file under `Tests/Goldens`.
func golden<Content: Decodable>(_ path: String, as type: Content.Type) throws -> Content {
    try JSONDecoder().decode(type, from: Data(fileBytes(goldenFolder(path))))
}
