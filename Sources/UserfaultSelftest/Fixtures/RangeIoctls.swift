package import UserfaultFD

/// The ioctls that a kernel with these features has for ranges, as UFFDIO_REGISTER must answer them.
package enum RangeIoctls {
    /// All of them.
    package static func all(_ features: UserfaultFD.Features) -> UserfaultFD.Ioctls {
        var ioctls: UserfaultFD.Ioctls = [.wake, .copy, .zeropage, .writeProtect]
        if !features.isDisjoint(with: [.minorHugetlbfs, .minorShmem]) { ioctls.insert(.continue) }
        if features.contains(.poison) { ioctls.insert(.poison) }
        if features.contains(.move) { ioctls.insert(.move) }
        if features.contains(.readWriteProtect) { ioctls.insert(.rwProtect) }
        return ioctls
    }

    /// What a registration answers: those of the modes asked for, less what huge pages of hugetlbfs lack.
    package static func registered(
        _ modes: UserfaultFD.RegisterModes, isHugetlb: Bool, _ features: UserfaultFD.Features
    ) -> UserfaultFD.Ioctls {
        var ioctls = all(features)
        if isHugetlb { ioctls.subtract([.zeropage, .move]) }
        if !modes.contains(.writeProtect) { ioctls.remove(.writeProtect) }
        if !modes.contains(.minor) { ioctls.remove(.continue) }
        if !modes.contains(.readWriteProtect) { ioctls.remove(.rwProtect) }
        return ioctls
    }
}

extension UserfaultFD.RegisterModes {
    /// Every set of modes, the empty one included.
    package static var combinations: [UserfaultFD.RegisterModes] { (0..<16).map { .init(rawValue: $0) } }

    /// The flags that `smaps` shows of memory registered so.
    package var smapsFlags: Set<String> {
        let names: [(UserfaultFD.RegisterModes, String)] = [
            (.missing, "um"), (.writeProtect, "uw"), (.minor, "ui"), (.readWriteProtect, "ur"),
        ]
        return Set(names.filter { contains($0.0) }.map(\.1))
    }

    /// Whether memory of a type can be registered so, by a descriptor with RWP enabled where there is RWP.
    package func areLawful(on memory: MemoryType, _ features: UserfaultFD.Features) -> Bool {
        if isEmpty { return false }
        if contains(.writeProtect) {
            let needed: UserfaultFD.Features =
                memory == .anon ? .writeProtect : [.writeProtect, .writeProtectHugetlbfsShmem]
            if !features.isSuperset(of: needed) || contains(.readWriteProtect) { return false }
        }
        if contains(.minor) {
            if memory == .anon || !features.contains(memory.isHugetlb ? .minorHugetlbfs : .minorShmem) { return false }
        }
        return !contains(.readWriteProtect) || features.contains(.readWriteProtect)
    }
}

extension MappingAccount {
    /// The flags of userfaultfd among the mapping's.
    package var userfaultFlags: Set<String> { flags.intersection(["um", "uw", "ui", "ur"]) }
}

extension Area {
    /// Fails unless a page of the view is registered in these modes, and in these only.
    package func expectModes(
        _ index: Int, _ modes: UserfaultFD.RegisterModes, _ why: @autoclosure () -> String = "", file: String = #fileID,
        line: Int = #line
    ) throws {
        try expectEqual(
            MappingAccount(holding: address(index)).userfaultFlags, modes.smapsFlags,
            "userfaultfd flags in smaps of page \(index) \(why())", file: file, line: line)
    }
}
