import CTestSupport
import Glibc
import SystemPackage
import Testing

@testable import UserfaultFD

extension Kernel {
    /// Children whose descriptors have a place that was made beforehand.
    @Suite struct Forks {
        @Test func aTableIsFilledAndEmptied() throws {
            var table = DescriptorTable(capacity: 2)
            #expect(table.count == 0 && table.capacity == 2)
            var numbers: [Int32] = []
            for expected in 0..<2 {
                let uffd = try UserfaultFD()
                numbers.append(uffd.withUnsafeDescriptor { $0.rawValue })
                guard case .inserted(let index) = table.insert(uffd) else { throw Unexpected() }
                #expect(index == expected)
            }
            #expect(table.count == 2)
            let third = try UserfaultFD()
            let number = third.withUnsafeDescriptor { $0.rawValue }
            guard case .full(let back) = table.insert(third) else { throw Unexpected() }
            #expect(back.withUnsafeDescriptor { $0.rawValue } == number)
            #expect(table.withDescriptor(at: 1) { $0.withUnsafeDescriptor { $0.rawValue } } == numbers[1])
            guard let taken = table.remove(at: 0) else { throw Unexpected() }
            #expect(taken.withUnsafeDescriptor { $0.rawValue } == numbers[0])
            guard case nil = table.remove(at: 0) else { throw Unexpected() }
            #expect(table.withDescriptor(at: 0) { _ in true } == nil)
            guard case .inserted(0) = table.insert(back) else { throw Unexpected() }
        }

        /// Memory whose userfaultfd is closed is ordinary memory: nobody waits for it.
        @Test func aTableThatIsDestroyedClosesWhatIsLeft() throws {
            let memory = try Mapping(anonymous: 5 * page), range = memory.range
            do {
                var table = DescriptorTable(capacity: 8)
                for index in 0..<5 {
                    let uffd = try UserfaultFD()
                    try uffd.register(memory.page(index), modes: .missing)
                    guard case .inserted(index) = table.insert(uffd) else { throw Unexpected() }
                }
                _ = table.remove(at: 2)
                #expect(table.count == 4)
            }
            let toucher = Worker { (0..<5).reduce(0) { $0 + Int(load(range.start + UInt($1 * page))) } }
            #expect(try toucher.value() == 0)
        }

        /// One place for a child after the other: the place of one that has ended is free for the next.
        @Test(.requiresRoot) func thePlacesOfEndedChildrenAreUsedAgain() throws {
            let guarded = try Guarded(pages: 1, features: .eventFork), start = guarded.start
            var table = DescriptorTable(capacity: 1)
            for _ in 0..<20 {
                let forker = Worker { cts_fork_loader(start) }
                var batch = EventBatch(capacity: 4)
                guard case .fork(let child) = try guarded.uffd.nextEvent(&batch) else { throw Unexpected() }
                guard case .inserted(let place) = table.insert(child) else { throw Unexpected() }
                try table.withDescriptor(at: place) { child throws in
                    #expect(child.isProcessGone == false)
                    _ = try child.nextFault()
                    try child.zeropage(AddressRange(start: start, count: page))
                }
                let pid = try forker.value()
                #expect(cts_wait(pid) == 0)
            }
            var ended: [Int] = []
            table.removeEnded { index, _ in ended.append(index) }
            #expect(ended == [0] && table.count == 0)
        }
    }
}

extension Kernel.Forks {
    /// What the language's runtime makes when a type is first used comes from the heap, whose locks a fork holds.
    @Test(.requiresRoot, .followsForks, arguments: [true, false])
    func theFirstWaitMayComeWhileAForkWaits(usesSet: Bool) async {
        await #expect(processExitsWith: .success) { [usesSet] in
            // A reader that waits for the heap ends here.
            alarm(30)
            let guarded = try Guarded(pages: 1, features: .eventFork)
            let stop = try EventFD(), set = try PollSet()
            try set.add(guarded.uffd, token: 1)
            var ready = ReadyBatch(), batch = EventBatch(), table = DescriptorTable(capacity: 2)
            let forker = Worker { () -> Int32 in
                let child = fork()
                if child == 0 { _exit(0) }
                return child
            }
            // By then it holds the locks: the event is there.
            while unreadForks(of: guarded.uffd) == 0 {}
            if usesSet { try set.wait(into: &ready) } else { _ = try guarded.uffd.poll(stop: stop) }
            _ = ready.next()
            try guarded.uffd.read(into: &batch)
            while let event = batch.next() {
                guard case .fork(let child) = consume event else { continue }
                _ = table.insert(child)
            }
            #expect(cts_wait(try forker.value()) == 0)
        }
    }
}

/// Whether a message waits, asked without the library.
private func unreadForks(of uffd: borrowing UserfaultFD) -> Int {
    uffd.withUnsafeDescriptor { descriptor in
        var entry = pollfd(fd: descriptor.rawValue, events: Int16(POLLIN), revents: 0)
        return Int(poll(&entry, 1, 0))
    }
}
