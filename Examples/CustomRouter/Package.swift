// swift-tools-version: 6.2
import PackageDescription

let package = Package(
    name: "CustomRouter",
    dependencies: [.package(name: "apus", path: "../..")],
    targets: [
        .executableTarget(
            name: "CustomRouter", dependencies: [.product(name: "Apus", package: "apus")],
            swiftSettings: [.swiftLanguageMode(.v6), .enableUpcomingFeature("ExistentialAny")])
    ])
