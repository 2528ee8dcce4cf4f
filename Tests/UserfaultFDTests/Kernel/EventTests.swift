import CTestSupport
import Glibc
import SystemPackage
import Testing

@testable import UserfaultFD

extension Kernel {
    /// The events of a changing address space; whoever changes it waits until the event is read.
    @Suite struct Events {
        @Test func removeComesBeforeThePagesGo() throws {
            let guarded = try Guarded(pages: 2, features: .eventRemove), range = guarded.range
            try guarded.uffd.copy(pattern(1, pages: 2).span.bytes, to: range.part(at: 0, count: 2 * page))
            let adviser = Worker {
                madvise(UnsafeMutableRawPointer(bitPattern: range.start), range.count, Advice.dontNeed.rawValue)
            }
            #expect(try guarded.uffd.poll(timeout: .seconds(10)) == true)

            // The gate: nothing can be filled while the event is on its way, and nothing was done.
            let fill = pattern(2)
            expectFailure(.copy, .resourceTemporarilyUnavailable, .mappingIsChanging) { () throws(UserfaultError) in
                try guarded.uffd.copy(fill.span.bytes, to: range.part(at: 0, count: fill.count))
            }
            expectFailure(.zeropage, .resourceTemporarilyUnavailable, .mappingIsChanging) {
                () throws(UserfaultError) in try guarded.uffd.zeropage(range)
            }
            if guarded.uffd.supportedFeatures.contains(.poison) {
                expectFailure(.poison, .resourceTemporarilyUnavailable, .mappingIsChanging) {
                    () throws(UserfaultError) in try guarded.uffd.poison(range)
                }
                expectFailure(.move, .resourceTemporarilyUnavailable, .mappingIsChanging) {
                    () throws(UserfaultError) in try guarded.uffd.move(from: range.start, to: range)
                }
            }
            expectFailure(.writeProtect, .resourceTemporarilyUnavailable, .mappingIsChanging) {
                () throws(UserfaultError) in try guarded.uffd.writeProtect(range, .protect)
            }
            if guarded.uffd.supportedFeatures.contains(.minorShmem) {
                expectFailure(.continue, .resourceTemporarilyUnavailable, .mappingIsChanging) {
                    () throws(UserfaultError) in try guarded.uffd.continue(range)
                }
            }

            var batch = EventBatch(capacity: 4)
            guard case .remove(let removed) = try guarded.uffd.nextEvent(&batch) else { throw Unexpected() }
            #expect(removed == range)
            #expect(try adviser.value() == 0)
            try guarded.uffd.copy(fill.span.bytes, to: range.part(at: 0, count: fill.count))
        }

        @Test func unmapTellsTheWholeRequest() throws {
            let memory = try Mapping(anonymous: 3 * page), range = memory.range
            let uffd = try UserfaultFD(features: .eventUnmap)
            try uffd.register(memory.page(1), modes: .missing)
            let unmapper = Worker { munmap(UnsafeMutableRawPointer(bitPattern: range.start), range.count) }
            var batch = EventBatch(capacity: 4)
            guard case .unmap(let unmapped) = try uffd.nextEvent(&batch) else { throw Unexpected() }
            #expect(unmapped == range)
            #expect(try unmapper.value() == 0)
            _ = memory.release()
        }

        @Test func remapTellsWhereTheMemoryWent() throws {
            let old = try Mapping(anonymous: 2 * page).release()
            let uffd = try UserfaultFD(features: .eventRemap)
            try uffd.register(old, modes: .missing)
            let target = try Mapping(anonymous: 2 * page, protection: .none).release()
            let mover = Worker { () -> AddressRange? in
                var memory = Mapping(adopting: old)
                try? memory.remap(to: .replacing(target.start))
                return memory.release()
            }
            var batch = EventBatch(capacity: 4)
            guard case .remap(let from, let to, let count) = try uffd.nextEvent(&batch) else { throw Unexpected() }
            #expect(from == old.start && to == target.start && count == old.count)
            #expect(try mover.value() == target)
            // The memory is registered where it went.
            try uffd.zeropage(target)
            try Mapping(adopting: target).unmap()
        }

        @Test(.requiresRoot) func forkBringsTheChildsDescriptor() throws {
            let guarded = try Guarded(pages: 1, features: .eventFork), start = guarded.start
            let forker = Worker { cts_fork_loader(start) }
            var batch = EventBatch(capacity: 4)
            guard case .fork(let childs) = try guarded.uffd.nextEvent(&batch) else { throw Unexpected() }
            #expect(childs.isNegotiated == true)
            #expect(childs.enabledFeatures == .eventFork)
            #expect(childs.supportedFeatures == guarded.uffd.supportedFeatures)
            try childs.withUnsafeDescriptor { descriptor throws in
                #expect(Descriptors.isCloseOnExec(descriptor.rawValue))
            }
            // The child's fault comes through the child's descriptor, and is filled in the child's memory.
            #expect(try childs.nextFault().address == start)
            try childs.copy(pattern(33).span.bytes, to: AddressRange(start: start, count: page))
            #expect(cts_wait(try forker.value()) == 33)
            #expect(try guarded.uffd.status().total == 0)
        }

        /// The descriptor of a fork event that nobody takes is closed, and the child reads zeros instead of waiting.
        @Test(.requiresRoot) func aForkThatNobodyTakesDoesNotHangTheChild() throws {
            let guarded = try Guarded(pages: 1, features: .eventFork), start = guarded.start
            let forker = Worker { cts_fork_loader(start) }
            #expect(try guarded.uffd.poll(timeout: .seconds(10)) == true)
            do {
                var batch = EventBatch(capacity: 4)
                #expect(try guarded.uffd.read(into: &batch) == 1)
            }
            #expect(cts_wait(try forker.value()) == 0)
        }

        @Test(.requiresRoot) func aForkWithoutRoomForItsDescriptorStaysQueued() async {
            await #expect(processExitsWith: .success) {
                let guarded = try Guarded(pages: 1, features: .eventFork), start = guarded.start
                let forker = Worker { cts_fork_loader(start) }
                #expect(try guarded.uffd.poll(timeout: .seconds(10)) == true)
                let before = cts_limit_descriptors(3)
                var batch = EventBatch(capacity: 4)
                expectFailure(.read, .tooManyOpenFiles, .tooManyDescriptors) { () throws(UserfaultError) in
                    try guarded.uffd.read(into: &batch)
                }
                _ = cts_limit_descriptors(before)
                #expect(try guarded.uffd.read(into: &batch) == 1)
                batch = EventBatch()
                #expect(cts_wait(try forker.value()) == 0)
            }
        }

        @Test(.requiresRoot) func forkEventsNeedThePrivilege() async {
            await #expect(processExitsWith: .success) {
                #expect(cts_become_user(65534) == 0)
                expectFailure(.negotiate, .notPermitted, .notPermitted) { () throws(UserfaultError) in
                    try UserfaultFD(features: .eventFork)
                }
            }
        }
    }
}
