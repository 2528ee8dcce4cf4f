import Glibc
import SystemPackage
import Testing

@testable import UserfaultFD

extension Kernel {
    /// Whose memory a range is.
    @Suite struct Holding {
        private func holders(
            of range: AddressRange, _ uffd: borrowing UserfaultFD, _ modes: UserfaultFD.RegisterModes = .missing
        ) -> [RangeHolder] {
            [uffd.probe(range), uffd.holder(of: range, modes: modes)]
        }

        @Test func registeredMemoryIsThisDescriptors() throws {
            let guarded = try Guarded(pages: 4)
            #expect(holders(of: guarded.range, guarded.uffd) == [.thisDescriptor, .thisDescriptor])
            // Asking leaves nothing behind.
            #expect((0..<4).allSatisfy { !isPresent(guarded.start + UInt($0 * page)) })
            try guarded.uffd.zeropage(guarded.range)
            #expect(holders(of: guarded.range, guarded.uffd) == [.thisDescriptor, .thisDescriptor])
        }

        @Test(.requires(.writeProtect)) func memoryThatIsWriteProtectedIsThisDescriptors() throws {
            let modes: UserfaultFD.RegisterModes = [.missing, .writeProtect]
            let guarded = try Guarded(pages: 4, modes: modes)
            #expect(holders(of: guarded.range, guarded.uffd, modes) == [.thisDescriptor, .thisDescriptor])
            #expect((0..<4).allSatisfy { !isPresent(guarded.start + UInt($0 * page)) })
        }

        /// Whatever modes the question is for, it leaves those of memory that is registered for write protection.
        @Test(
            .requires(.writeProtect),
            arguments: [[.writeProtect], [.missing, .writeProtect]] as [UserfaultFD.RegisterModes],
            [.missing, [.missing, .writeProtect]] as [UserfaultFD.RegisterModes])
        func theQuestionChangesNoModes(modes: UserfaultFD.RegisterModes, asked: UserfaultFD.RegisterModes) throws {
            let guarded = try Guarded(pages: 4, modes: modes)
            let part = AddressRange(start: guarded.start + UInt(page), count: page)
            #expect(guarded.uffd.holder(of: part, modes: asked) == .thisDescriptor)
            // One mapping still, all of which can be protected.
            #expect(guarded.uffd.probe(guarded.range) == .thisDescriptor)
            try guarded.uffd.writeProtect(guarded.range, .protect)
            try guarded.uffd.writeProtect(guarded.range, .unprotect)
        }

        /// Memory without write protection does not get it from the question.
        @Test(.requires(.writeProtect)) func theQuestionAddsNoWriteProtection() throws {
            let guarded = try Guarded(pages: 4)
            let part = AddressRange(start: guarded.start + UInt(page), count: page)
            #expect(guarded.uffd.holder(of: part, modes: [.missing, .writeProtect]) == .thisDescriptor)
            #expect(guarded.uffd.probe(guarded.range) == .thisDescriptor)
            #expect(throws: UserfaultError.self) { try guarded.uffd.writeProtect(part, .protect) }
        }

        @Test(.requires(.missingShmem)) func sharedMemoryIsThisDescriptors() throws {
            let twice = try Twice(pages: 2)
            let uffd = try UserfaultFD(options: .init(faults: .userMode))
            try uffd.register(twice.guarded.range, modes: .missing)
            #expect(holders(of: twice.guarded.range, uffd) == [.thisDescriptor, .thisDescriptor])
            #expect(!isPresent(twice.alias.range.start))
        }

        @Test func memoryOfAnotherDescriptorIsAnothers() throws {
            let guarded = try Guarded(pages: 1)
            let other = try UserfaultFD(options: .init(faults: .userMode))
            #expect(other.holder(of: guarded.range, modes: .missing) == .another)
        }

        @Test func memoryThatIsNotRegisteredIsNobodys() throws {
            let memory = try Mapping(anonymous: 4 * page)
            let uffd = try UserfaultFD(options: .init(faults: .userMode))
            #expect(holders(of: memory.range, uffd) == [.nobody, .nobody])
            // It was not registered by asking.
            #expect(uffd.probe(memory.range) == .nobody)
        }

        @Test func twoMappingsAreNobodys() throws {
            let guarded = try Guarded(pages: 4)
            #expect(mprotect(UnsafeMutableRawPointer(bitPattern: guarded.start), 2 * page, PROT_READ) == 0)
            #expect(holders(of: guarded.range, guarded.uffd) == [.nobody, .nobody])
            let half = AddressRange(start: guarded.start, count: 2 * page)
            #expect(holders(of: half, guarded.uffd) == [.thisDescriptor, .thisDescriptor])
        }

        @Test func aHoleIsNobodys() throws {
            let guarded = try Guarded(pages: 2)
            let hole = AddressRange(start: guarded.start, count: page)
            #expect(munmap(UnsafeMutableRawPointer(bitPattern: hole.start), page) == 0)
            #expect(holders(of: hole, guarded.uffd) == [.nobody, .nobody])
            #expect(holders(of: guarded.range, guarded.uffd) == [.nobody, .nobody])
        }
    }
}
