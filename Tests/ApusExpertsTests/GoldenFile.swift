import ApusTestSupport
import Foundation
import Testing

/// A JSON file under `Tests/Goldens`.
func golden<Content: Decodable>(_ path: String, as type: Content.Type) throws -> Content {
    let root = try #require(repositoryRoot())
    return try JSONDecoder().decode(type, from: Data(contentsOf: URL(fileURLWithPath: "\(root)/Tests/Goldens/\(path)")))
}
