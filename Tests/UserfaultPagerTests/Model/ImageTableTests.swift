import Testing

@testable import UserfaultPager

/// Which number an image has.
@Suite struct ImageTableTests {
    private func image(_ name: Int) throws -> ImageIdentity {
        try ImageIdentity(name: "image \(name)", byteCount: 1 << 20, revision: "1")
    }

    @Test func anImageKeepsItsNumber() throws {
        var table = ImageTable(limit: 4)
        let numbers = try (0..<4).map { table.number(of: try image($0)) }
        #expect(Set(numbers).count == 4)
        #expect(try (0..<4).map { table.number(of: try image($0)) } == numbers)
    }

    /// Another revision, and another length, is another image.
    @Test func imagesThatDifferHaveNumbersOfTheirOwn() throws {
        var table = ImageTable(limit: 4)
        let images = [
            try ImageIdentity(name: "a", byteCount: 4, revision: "1"),
            try ImageIdentity(name: "a", byteCount: 4, revision: "2"),
            try ImageIdentity(name: "a", byteCount: 8, revision: "1"),
        ]
        #expect(Set(images.map { table.number(of: $0) }).count == 3)
    }

    /// Those that nobody has asked for longest are forgotten, and their numbers are given to none.
    @Test func imagesAreForgotten() throws {
        var table = ImageTable(limit: 4)
        var given: Set<Int> = []
        let first = table.number(of: try image(0))
        given.insert(first)
        for name in 1..<1000 {
            #expect(given.insert(table.number(of: try image(name))).inserted)
            // It is asked for all the time.
            #expect(table.number(of: try image(0)) == first)
            #expect(table.count <= 4)
        }
        #expect(given.insert(table.number(of: try image(1))).inserted)
    }
}
