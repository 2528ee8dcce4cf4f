import Testing

@testable import UserfaultSelftest

/// The list of cases itself.
@Suite struct CatalogueTests {
    @Test func identitiesAreUnique() {
        let identities = AllCases.cases.flatMap(\.results).map(\.identity)
        #expect(Set(identities).count == identities.count)
    }

    @Test func everyCaseSaysWhatIsRight() {
        for selftestCase in AllCases.cases {
            #expect(!selftestCase.summary.isEmpty, "\(selftestCase.name)")
        }
    }
}
