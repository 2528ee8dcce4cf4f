import Testing

@testable import UserfaultNBD

/// What needs no server.
@Suite struct PartsTests {
    private func run(_ range: Range<Int>, _ isZero: Bool) -> BlockRun { BlockRun(range: range, isZero: isZero) }

    @Test func runsAreFoundAcrossWindows() {
        let window = BlockMap.windowBytes
        var map = BlockMap(byteCount: window + 8192)
        #expect(map.unknownWindow(in: 0..<4096) == 0)
        map.learn(window: 0, [run(0..<4096, false), run(4096..<window, true)])
        #expect(map.unknownWindow(in: 0..<4096) == nil)
        #expect(map.unknownWindow(in: window - 1..<window + 1) == 1)
        map.learn(window: 1, [run(window..<window + 4096, true), run(window + 4096..<window + 8192, false)])
        #expect(map.runs(in: 0..<4096) == [run(0..<4096, false)])
        #expect(map.runs(in: 2048..<8192) == [run(2048..<4096, false), run(4096..<8192, true)])
        #expect(
            map.runs(in: window - 4096..<window + 8192)
                == [run(window - 4096..<window + 4096, true), run(window + 4096..<window + 8192, false)])
        #expect(map.unknownWindow(in: 5..<5) == nil)
    }

    @Test func oldWindowsAreForgotten() {
        let window = BlockMap.windowBytes
        var map = BlockMap(byteCount: 4 * window, limit: 4)
        for number in 0..<3 {
            let start = number * window
            map.learn(window: number, [run(start..<start + 4096, false), run(start + 4096..<start + window, true)])
        }
        #expect(map.unknownWindow(in: 0..<1) == 0)
        #expect(map.unknownWindow(in: window..<3 * window) == nil)
    }

    @Test func partsAreMultiplesOfTheServersBlocks() {
        let runs = [run(4096..<8192, false), run(8192..<20480, true), run(20480..<24576, false)]
        #expect(runs.parts(minimum: 1, maximum: 1 << 20) == [4096..<8192, 20480..<24576])
        #expect(runs.parts(minimum: 16384, maximum: 1 << 20) == [0..<32768])
        #expect(runs.parts(minimum: 16384, maximum: 16384) == [0..<16384, 16384..<32768])
        #expect([run(0..<8192, true)].parts(minimum: 1, maximum: 4096) == [])
        // Short holes are read.
        #expect(runs.parts(minimum: 1, maximum: 1 << 20, gap: 12289) == [4096..<24576])
        #expect(runs.parts(minimum: 1, maximum: 1 << 20, gap: 12288) == [4096..<8192, 20480..<24576])
        let crumbs = (0..<4096).map { run($0..<$0 + 1, $0 % 2 == 0) }
        #expect(crumbs.parts(minimum: 1, maximum: 1 << 20, gap: 4096) == [1..<4096])
    }

    /// What there is of 100..<200 after these.
    private func coverage(_ pieces: Range<Int>...) -> Coverage {
        var coverage = Coverage(of: 100..<200)
        for piece in pieces { coverage.add(piece) }
        return coverage
    }

    @Test(arguments: [
        100..<101, 119..<121, 110..<115, 140..<151, 149..<201, 90..<101, 199..<201, 99..<100, 200..<201,
    ])
    func bytesThatCameBeforeOrWereNotAskedForAreNotTaken(piece: Range<Int>) {
        let coverage = coverage(100..<120, 150..<200, piece, 120..<150)
        #expect(!coverage.isComplete)
        #expect(coverage.byteCount == 70)
    }

    @Test func coverageIsCompleteWithTheLastByte() {
        #expect(coverage(100..<120, 150..<200, 130..<150, 125..<125).byteCount == 90)
        #expect(!coverage(100..<120, 150..<200, 130..<150, 125..<125).isComplete)
        #expect(coverage(100..<120, 150..<200, 130..<150, 120..<130).isComplete)
        #expect(!coverage(100..<200, 100..<200).isComplete)
        #expect(coverage(100..<200).isComplete)
    }

    @Test func bytesMayComeInAnyOrder() {
        var coverage = Coverage(of: 0..<2048)
        for place in (0..<2048).shuffled() { coverage.add(place..<place + 1) }
        #expect(coverage.isComplete)
    }

    /// A server that sends crumbs with gaps does not have unlimited memory for them.
    @Test func piecesAreLimited() {
        func crumbs(_ count: Int) -> Coverage {
            var coverage = Coverage(of: 0..<2 * count)
            for place in 0..<count { coverage.add(2 * place..<2 * place + 1) }
            for place in 0..<count { coverage.add(2 * place + 1..<2 * place + 2) }
            return coverage
        }
        #expect(crumbs(Coverage.mostPieces).isComplete)
        #expect(!crumbs(Coverage.mostPieces + 1).isComplete)
    }

    @Test func demandGoesFirstAndNeighboursTogether() {
        var queue = RequestQueue()
        func put(_ start: Int, _ isDemand: Bool, pages: Int = 1) {
            queue.put(Letter(range: start * 4096..<(start + pages) * 4096, isDemand: isDemand))
        }
        put(8, false)
        put(20, true)
        put(9, false, pages: 2)
        put(21, false)
        put(11, false)
        guard let first = queue.takeFirst() else { return #expect(Bool(false), "an empty queue") }
        #expect(first.range.lowerBound == 20 * 4096)
        // Its neighbour is not as urgent.
        #expect(queue.takeNeighbour(of: first, atMost: 1 << 20) == nil)
        #expect(queue.takeFirst(demandOnly: true) == nil)
        var run: [Letter] = []
        while let next = run.last.map({ queue.takeNeighbour(of: $0, atMost: 1 << 20) }) ?? queue.takeFirst() {
            run.append(next)
        }
        #expect(run.map { $0.range.lowerBound / 4096 } == [8, 9, 11])
        #expect(queue.takeFirst()?.range.lowerBound == 21 * 4096)
        #expect(queue.isEmpty)
    }

    @Test func contentIsOfOneKindOrMixed() {
        let window = BlockMap.windowBytes
        var map = BlockMap(byteCount: 2 * window)
        map.learn(
            window: 0,
            [
                BlockRun(range: 0..<8192, isZero: true), BlockRun(range: 8192..<16384, isZero: false),
                BlockRun(range: 16384..<window, isZero: true),
            ])
        #expect(map.content(of: 0..<8192) == .zeros)
        #expect(map.content(of: 8192..<16384) == .data)
        #expect(map.content(of: 4096..<12288) == .mixed)
        #expect(map.content(of: 12288..<20480) == .mixed)
        #expect(map.content(of: window - 4096..<window + 4096) == .unknown(window: 1))
    }

    /// What is as long as a read may be is read by itself; what is shorter goes along with it.
    @Test func longRequestsHaveNoNeighbours() {
        var queue = RequestQueue(most: 8192)
        for range in [0..<8192, 8192..<16384, 16384..<20480] { queue.put(Letter(range: range, isDemand: false)) }
        guard let first = queue.takeFirst() else { return #expect(Bool(false), "an empty queue") }
        #expect(queue.takeNeighbour(of: first, atMost: 1 << 20) == nil)
        guard let second = queue.takeFirst() else { return #expect(Bool(false), "an empty queue") }
        #expect(second.range == 8192..<16384)
        #expect(queue.takeNeighbour(of: second, atMost: 1 << 20)?.range == 16384..<20480)
        #expect(queue.isEmpty)
    }

    @Test func manyRequestsComeInOrder() {
        var queue = RequestQueue()
        for page in 0..<5000 { queue.put(Letter(range: page * 8192..<page * 8192 + 4096, isDemand: false)) }
        let removed = queue.removeAll { $0.range.lowerBound / 8192 % 2 == 1 }
        #expect(removed.count == 2500)
        var order: [Int] = []
        while let letter = queue.takeFirst() { order.append(letter.range.lowerBound / 8192) }
        #expect(order == Array(stride(from: 0, to: 5000, by: 2)))
    }
}
