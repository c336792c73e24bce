extension Layout {
    /// The kinds of groups that the layout has, in the order in which their communicators are made.
    public var groupKinds: [GroupKind] {
        [.tensor, .data] + expertDegrees.flatMap { [.expert(degree: $0), .expertData(degree: $0)] }
    }

    /// Ranks of a group.
    public func size(of kind: GroupKind) -> Int {
        switch kind {
        case .world: ranks
        case .tensor: tensor
        case .data: data
        case .expert(let degree): degree
        case .expertData(let degree): expertLine / degree
        }
    }

    /// The group of `kind` that `rank` belongs to, as ranks of the world, ascending.
    ///
    /// A rank's place in it is its coordinate: tensor and data rank in those groups, ``RankPlace/expert(degree:)``
    /// in an expert group.
    public func group(_ kind: GroupKind, of rank: Int) -> [Int] {
        let place = place(of: rank)
        switch kind {
        case .world: return Array(0..<ranks)
        case .tensor: return (0..<tensor).map { self.rank(tensor: $0, data: place.data) }
        case .data: return (0..<data).map { self.rank(tensor: place.tensor, data: $0) }
        case .expert(let degree):
            let copy = place.expertData(degree: degree)
            return (0..<degree).map { self.rank(expert: $0, copy: copy, degree: degree, tensor: place.tensor) }
        case .expertData(let degree):
            let expert = place.expert(degree: degree)
            return (0..<expertLine / degree).map {
                self.rank(expert: expert, copy: $0, degree: degree, tensor: place.tensor)
            }
        }
    }

    /// Which of ``groups(_:)`` of `kind` the group of `rank` is.
    public func groupIndex(_ kind: GroupKind, of rank: Int) -> Int {
        let place = place(of: rank)
        switch kind {
        case .world: return 0
        case .tensor: return place.data
        case .data: return place.tensor
        case .expert(let degree): return expertIndex(place.expertData(degree: degree), place)
        case .expertData(let degree): return expertIndex(place.expert(degree: degree), place)
        }
    }

    /// All groups of `kind`, by their lowest rank. They share out the world: each rank is in one.
    public func groups(_ kind: GroupKind) -> [[Int]] {
        (0..<ranks).compactMap { rank in
            let group = group(kind, of: rank)
            return group.first == rank ? group : nil
        }
    }

    /// The rank with these coordinates.
    public func rank(tensor: Int, data: Int) -> Int { data * self.tensor + tensor }

    private func expertIndex(_ group: Int, _ place: RankPlace) -> Int {
        expertTensor ? group * tensor + place.tensor : group
    }

    /// The rank at the place `expert` of the group that holds copy `copy` of a layer's experts; `tensor` chooses among
    /// the data groups where those are what expert groups are cut from.
    private func rank(expert: Int, copy: Int, degree: Int, tensor: Int) -> Int {
        let line =
            switch order {
            case .expertBeforeData: copy * degree + expert
            case .dataBeforeExpert: expert * (expertLine / degree) + copy
            }
        return expertTensor ? rank(tensor: tensor, data: line) : line
    }
}
