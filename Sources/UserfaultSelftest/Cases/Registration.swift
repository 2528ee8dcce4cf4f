import CUserfaultFD
import SystemPackage
import UserfaultFD

/// UFFDIO_REGISTER and UFFDIO_UNREGISTER: what is registered, how, and what the calls answer.
enum RegistrationCases: CaseTheme {
    static let cases = [
        SelftestCase(
            "register-ioctls", on: .all,
            "each set of modes is accepted where the memory can do it, answers the mask of its ioctls and shows in smaps",
            covers: ["A.3", "A.4", "A.5", "A.6", "A.7", "part5.24", "part5.26"], body: ioctls)
    ]

    /// Upstream's test of the same name, for all modes, with the whole mask and both neighbours of the page.
    private static func ioctls(_ context: CaseContext) throws {
        let area = try Area(context, pages: 3)
        let known = try UserfaultFD().supportedFeatures
        let uffd = try UserfaultFD(features: known.intersection(.readWriteProtect))
        for modes in UserfaultFD.RegisterModes.combinations {
            let lawful = modes.areLawful(on: context.memory, known)
            let mask = RangeIoctls.registered(modes, isHugetlb: context.memory.isHugetlb, known)
            let right = lawful ? RawAnswer(errno: 0, word: Int64(mask.rawValue)) : .refused(.invalidArgument)
            try expectEqual(uffd.rawRegister(area.page(1), modes), right, "UFFDIO_REGISTER \(modes)")

            try area.expectModes(0, [], "in front of what was registered \(modes)")
            try area.expectModes(1, lawful ? modes : [], "after UFFDIO_REGISTER \(modes)")
            try area.expectModes(2, [], "behind what was registered \(modes)")
            try uffd.unregister(area.page(1))
            try area.expectModes(1, [], "after UFFDIO_UNREGISTER")
        }
        // Mappings of huge pages are never merged.
        if !context.memory.isHugetlb {
            try expectEqual(mappings(in: area.range), [area.range], "mappings after the last UFFDIO_UNREGISTER")
        }
    }
}
