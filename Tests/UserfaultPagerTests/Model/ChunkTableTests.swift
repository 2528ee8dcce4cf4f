import Testing

@testable import UserfaultPager

/// Places of chunks, against a list that is searched.
struct ChunkTableTests {
    @Test(arguments: 0..<20) func placesAreNeverSharedNorTakenWhilePinned(seed: Int) {
        var random = SystemRandomNumberGenerator()
        var table = ChunkTable(places: 8)
        var held: [(place: Int, key: ChunkKey)] = []
        for _ in 0..<2000 {
            let key = ChunkKey(image: seed % 2, index: Int.random(in: 0..<24, using: &random))
            if Bool.random(using: &random), let index = held.indices.randomElement(using: &random) {
                table.unpin(held.remove(at: index).place)
            } else if let place = table.pin(key) {
                // What a pinned place says is what whoever pinned it first was told.
                #expect(held.allSatisfy { $0.place != place || $0.key == key })
                held.append((place, key))
            } else if let place = table.take() {
                #expect(!held.contains { $0.place == place })
                #expect(!held.contains { $0.key == key })
                table.name(place, key)
                held.append((place, key))
            } else {
                #expect(Set(held.map(\.place)).count == 8)
            }
            #expect(table.unpinned == 8 - Set(held.map(\.place)).count)
        }
    }

    @Test func whatIsUsedStaysLonger() {
        var table = ChunkTable(places: 4)
        func use(_ index: Int) -> Bool {
            let key = ChunkKey(image: 0, index: index)
            if let place = table.pin(key) {
                table.unpin(place)
                return true
            }
            guard let place = table.take() else { return false }
            table.name(place, key)
            table.unpin(place)
            return false
        }
        for index in 0..<4 { #expect(!use(index)) }
        // The hand passes all of them once.
        #expect(!use(4))
        for other in 5..<20 {
            #expect(use(1) || other == 5)
            #expect(!use(other))
        }
    }
}
