import ApusTestSupport
import Testing

@testable import ApusParallel

/// What holds of the groups of every layout.
struct GroupPropertyTests {
    static let samples = 400

    @Test
    func `groups of a kind share out the world, in equal sizes`() throws {
        for (layout, _) in try LayoutSamples.many(Self.samples, seed: 1) {
            for kind in layout.groupKinds + [.world] {
                let groups = layout.groups(kind)
                #expect(groups.flatMap(\.self).sorted() == Array(0..<layout.ranks), "\(layout): \(kind.name)")
                #expect(groups.allSatisfy { $0.count == layout.size(of: kind) }, "\(layout): \(kind.name)")
                for (index, group) in groups.enumerated() {
                    #expect(group == group.sorted())
                    for rank in group {
                        #expect(layout.group(kind, of: rank) == group, "\(layout): \(kind.name) of \(rank)")
                        #expect(layout.groupIndex(kind, of: rank) == index, "\(layout): \(kind.name) of \(rank)")
                    }
                }
            }
        }
    }

    @Test
    func `degrees multiply to the world`() throws {
        for (layout, _) in try LayoutSamples.many(Self.samples, seed: 2) {
            #expect(layout.size(of: .tensor) == layout.tensor)
            #expect(layout.tensor * layout.data == layout.ranks)
            for degree in layout.expertDegrees {
                let (expert, copies) = (GroupKind.expert(degree: degree), GroupKind.expertData(degree: degree))
                #expect(
                    layout.size(of: expert) * layout.size(of: copies) * layout.expertTensorDegree == layout.ranks)
                // The one takes from the line of ranks what the other leaves: they meet in one rank.
                for rank in 0..<layout.ranks {
                    let both = Set(layout.group(expert, of: rank)).intersection(layout.group(copies, of: rank))
                    #expect(both == [rank], "\(layout)")
                }
            }
        }
    }

    @Test
    func `expert groups are cut from a data group, at one tensor rank`() throws {
        for (layout, _) in try LayoutSamples.many(Self.samples, seed: 3) where layout.expertTensor {
            for rank in 0..<layout.ranks {
                let data = Set(layout.group(.data, of: rank))
                for degree in layout.expertDegrees {
                    for kind in [GroupKind.expert(degree: degree), .expertData(degree: degree)] {
                        let group = layout.group(kind, of: rank)
                        #expect(data.isSuperset(of: group))
                        #expect(Set(group.map { layout.place(of: $0).tensor }).count == 1)
                    }
                }
            }
        }
    }

    @Test
    func `coordinates are places in groups`() throws {
        for (layout, _) in try LayoutSamples.many(Self.samples, seed: 4) {
            for place in layout.places {
                #expect(layout.rank(tensor: place.tensor, data: place.data) == place.rank)
                #expect(layout.group(.tensor, of: place.rank)[place.tensor] == place.rank)
                #expect(layout.group(.data, of: place.rank)[place.data] == place.rank)
                for degree in layout.expertDegrees {
                    let expert = layout.group(.expert(degree: degree), of: place.rank)
                    #expect(expert[place.expert(degree: degree)] == place.rank)
                    let copies = layout.group(.expertData(degree: degree), of: place.rank)
                    #expect(copies[place.expertData(degree: degree)] == place.rank)
                }
            }
        }
    }

    @Test
    func `neighbours stand as the order says`() throws {
        for (layout, _) in try LayoutSamples.many(Self.samples, seed: 5) {
            let step = layout.expertTensorDegree
            for degree in layout.expertDegrees where layout.ranks > 1 {
                let near: GroupKind =
                    layout.order == .expertBeforeData ? .expert(degree: degree) : .expertData(degree: degree)
                for group in layout.groups(near) {
                    #expect(zip(group, group.dropFirst()).allSatisfy { $1 - $0 == step }, "\(layout): \(near.name)")
                }
            }
        }
    }

    @Test
    func `a data group computes each sequence once, a tensor group the same ones`() throws {
        for (layout, workload) in try LayoutSamples.many(Self.samples, seed: 6) {
            let batch = try #require(workload.batch)
            func passes(_ rank: Int) -> [Range<Int>] {
                BatchShare(layout.place(of: rank), batch: batch.sequences, microBatch: batch.microBatch).passes
            }
            for rank in 0..<layout.ranks {
                let parts = layout.group(.data, of: rank).map(passes)
                // Pass by pass, the data ranks' sequences follow each other.
                let inOrder = parts[0].indices.flatMap { pass in parts.flatMap { Array($0[pass]) } }
                #expect(inOrder == Array(0..<batch.sequences))
                #expect(parts.joined().allSatisfy { $0.lowerBound.isMultiple(of: batch.group) })
                for peer in layout.group(.tensor, of: rank) { #expect(passes(peer) == passes(rank)) }
            }
        }
    }
}
