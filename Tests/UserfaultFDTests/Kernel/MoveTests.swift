import CTestSupport
import SystemPackage
import Testing

@testable import UserfaultFD

extension Kernel {
    @Suite(.requires(.move)) struct Move {
        /// Registered memory to move to, and populated memory to move from.
        struct Ground: ~Copyable {
            let guarded: Guarded
            let source: Mapping

            init(pages: Int) throws(UserfaultError) {
                let destination = try Guarded(pages: pages)
                let from = try Mapping(anonymous: pages * page)
                try from.advise(.noHugePage)
                for index in 0..<pages { store(UInt8(index + 1), at: from.page(index).start) }
                guarded = destination
                source = from
            }
        }

        @Test func servesAFault() throws {
            let ground = try Ground(pages: 2), start = ground.guarded.start
            let toucher = Worker { load(start) }
            _ = try ground.guarded.uffd.nextFault()
            #expect(try ground.guarded.uffd.move(from: ground.source.range.start, to: ground.guarded.range) == 2 * page)
            #expect(try toucher.value() == 1)
            #expect(load(ground.guarded.memory.page(1).start) == 2)
            #expect(load(ground.source.range.start) == 0)
        }

        @Test func holesStopItUnlessTheyAreAllowed() throws {
            let ground = try Ground(pages: 3)
            try ground.source.advise(.dontNeed, ground.source.page(1))
            expectFailure(.move, .resourceTemporarilyUnavailable, .partial, bytes: page) { () throws(UserfaultError) in
                try ground.guarded.uffd.move(from: ground.source.range.start, to: ground.guarded.range)
            }
            let rest = ground.guarded.range.dropFirst(page)
            expectFailure(.move, .noSuchFileOrDirectory, .noSourcePage) { () throws(UserfaultError) in
                try ground.guarded.uffd.move(from: ground.source.page(1).start, to: rest)
            }
            #expect(
                try ground.guarded.uffd.move(from: ground.source.page(1).start, to: rest, options: .allowSourceHoles)
                    == 2 * page)
            #expect(load(ground.guarded.memory.page(2).start) == 3)
        }

        @Test func aPageThatIsThereStays() throws {
            let ground = try Ground(pages: 1)
            try ground.guarded.uffd.zeropage(ground.guarded.range)
            expectFailure(.move, .fileExists, .alreadyMapped) { () throws(UserfaultError) in
                try ground.guarded.uffd.move(from: ground.source.range.start, to: ground.guarded.range)
            }
        }

        @Test func aSharedSourceIsBusy() throws {
            let ground = try Ground(pages: 1)
            let child = cts_fork_waiting()
            try #require(child > 0)
            expectFailure(.move, .resourceBusy, .busy) { () throws(UserfaultError) in
                try ground.guarded.uffd.move(from: ground.source.range.start, to: ground.guarded.range)
            }
            #expect(cts_kill(child) == -9)
        }

        @Test(.requires(.poison)) func aPoisonedSourceIsABadAddress() throws {
            let ground = try Ground(pages: 1)
            let source = try Mapping(anonymous: page)
            try ground.guarded.uffd.register(source.range, modes: .missing)
            try ground.guarded.uffd.poison(source.range)
            expectFailure(.move, .badAddress, .badAddress) { () throws(UserfaultError) in
                try ground.guarded.uffd.move(from: source.range.start, to: ground.guarded.range)
            }
        }

        @Test func wrongMemoryIsRefused() throws {
            let ground = try Ground(pages: 2)
            let twice = try Twice(pages: 2)
            expectFailure(.move, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try ground.guarded.uffd.move(from: twice.alias.range.start, to: ground.guarded.range)
            }
            expectFailure(.move, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try ground.guarded.uffd.move(from: ground.source.range.start + 1, to: ground.guarded.range)
            }
            expectFailure(.move, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try ground.guarded.uffd.move(from: ground.guarded.start, to: ground.source.range)
            }
            let gone = try Mapping(anonymous: page)
            let range = gone.range
            try gone.unmap()
            expectFailure(.move, .noSuchFileOrDirectory, .noSourcePage) { () throws(UserfaultError) in
                try ground.guarded.uffd.move(from: range.start, to: ground.guarded.memory.page(0))
            }
            expectFailure(.move, .noSuchFileOrDirectory, .noSuchRange) { () throws(UserfaultError) in
                try ground.guarded.uffd.move(from: ground.source.range.start, to: range)
            }
        }
    }

    @Suite struct MoveOnOldKernels {
        @Test(.requiresLackOf(.move)) func isUnsupported() throws {
            let guarded = try Guarded(pages: 1)
            let source = try Mapping(anonymous: page, options: .populate)
            expectFailure(.move, .invalidArgument, .unsupported) { () throws(UserfaultError) in
                try guarded.uffd.move(from: source.range.start, to: guarded.range)
            }
        }
    }
}
