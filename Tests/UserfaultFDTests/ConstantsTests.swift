import CUserfaultFD
import Testing

@testable import UserfaultFD

/// Swift says the same numbers as the C declarations, which the compiler compares with the kernel's header.
@Suite struct ConstantsTests {
    typealias Features = UserfaultFD.Features
    typealias Ioctls = UserfaultFD.Ioctls

    static let features: [(Features, UInt64)] = [
        (.writeProtect, CUFFD_FEATURE_PAGEFAULT_FLAG_WP), (.eventFork, CUFFD_FEATURE_EVENT_FORK),
        (.eventRemap, CUFFD_FEATURE_EVENT_REMAP), (.eventRemove, CUFFD_FEATURE_EVENT_REMOVE),
        (.missingHugetlbfs, CUFFD_FEATURE_MISSING_HUGETLBFS), (.missingShmem, CUFFD_FEATURE_MISSING_SHMEM),
        (.eventUnmap, CUFFD_FEATURE_EVENT_UNMAP), (.sigbus, CUFFD_FEATURE_SIGBUS),
        (.threadID, CUFFD_FEATURE_THREAD_ID), (.minorHugetlbfs, CUFFD_FEATURE_MINOR_HUGETLBFS),
        (.minorShmem, CUFFD_FEATURE_MINOR_SHMEM), (.exactAddress, CUFFD_FEATURE_EXACT_ADDRESS),
        (.writeProtectHugetlbfsShmem, CUFFD_FEATURE_WP_HUGETLBFS_SHMEM),
        (.writeProtectUnpopulated, CUFFD_FEATURE_WP_UNPOPULATED), (.poison, CUFFD_FEATURE_POISON),
        (.writeProtectAsync, CUFFD_FEATURE_WP_ASYNC), (.move, CUFFD_FEATURE_MOVE),
        (.readWriteProtect, CUFFD_FEATURE_RWP), (.readWriteProtectAsync, CUFFD_FEATURE_RWP_ASYNC),
    ]

    @Test func featuresAreTheKernels() {
        for (feature, constant) in Self.features { #expect(feature.rawValue == constant) }
        #expect(Features.names.map(\.feature) == Self.features.map(\.0))
        #expect(Features.names.reduce(into: Features()) { $0.formUnion($1.feature) }.rawValue == 0x7FFFF)
        #expect(Features.events == [.eventFork, .eventRemap, .eventRemove, .eventUnmap])
    }

    @Test func ioctlsAreTheKernels() {
        let numbers: [(Ioctls, UInt64)] = [
            (.register, CUFFD_NR_REGISTER), (.unregister, CUFFD_NR_UNREGISTER), (.wake, CUFFD_NR_WAKE),
            (.copy, CUFFD_NR_COPY), (.zeropage, CUFFD_NR_ZEROPAGE), (.move, CUFFD_NR_MOVE),
            (.writeProtect, CUFFD_NR_WRITEPROTECT), (.continue, CUFFD_NR_CONTINUE), (.poison, CUFFD_NR_POISON),
            (.rwProtect, CUFFD_NR_RWPROTECT), (.setMode, CUFFD_NR_SET_MODE), (.api, CUFFD_NR_API),
        ]
        for (ioctl, number) in numbers { #expect(ioctl.rawValue == 1 << number) }
        #expect(Ioctls.names.map(\.ioctl) == numbers.map(\.0))
    }

    @Test func modesAndOptionsAreTheKernels() {
        #expect(UserfaultFD.RegisterModes.missing.rawValue == CUFFD_REGISTER_MODE_MISSING)
        #expect(UserfaultFD.RegisterModes.writeProtect.rawValue == CUFFD_REGISTER_MODE_WP)
        #expect(UserfaultFD.RegisterModes.minor.rawValue == CUFFD_REGISTER_MODE_MINOR)
        #expect(UserfaultFD.RegisterModes.readWriteProtect.rawValue == CUFFD_REGISTER_MODE_RWP)
        #expect(UserfaultFD.CopyOptions.doNotWake.rawValue == CUFFD_COPY_MODE_DONTWAKE)
        #expect(UserfaultFD.CopyOptions.writeProtect.rawValue == CUFFD_COPY_MODE_WP)
        #expect(UserfaultFD.ZeropageOptions.doNotWake.rawValue == CUFFD_ZEROPAGE_MODE_DONTWAKE)
        #expect(UserfaultFD.ContinueOptions.doNotWake.rawValue == CUFFD_CONTINUE_MODE_DONTWAKE)
        #expect(UserfaultFD.ContinueOptions.writeProtect.rawValue == CUFFD_CONTINUE_MODE_WP)
        #expect(UserfaultFD.MoveOptions.doNotWake.rawValue == CUFFD_MOVE_MODE_DONTWAKE)
        #expect(UserfaultFD.MoveOptions.allowSourceHoles.rawValue == CUFFD_MOVE_MODE_ALLOW_SRC_HOLES)
        #expect(UserfaultFD.PoisonOptions.doNotWake.rawValue == CUFFD_POISON_MODE_DONTWAKE)
        #expect(UserfaultFD.Protection.protect.rawValue == CUFFD_WRITEPROTECT_MODE_WP)
        #expect(UserfaultFD.Protection.protect.rawValue == CUFFD_RWPROTECT_MODE_RWP)
        #expect(UserfaultFD.Protection.unprotect.rawValue == 0)
        #expect(UserfaultFD.Protection.unprotectWithoutWaking.rawValue == CUFFD_WRITEPROTECT_MODE_DONTWAKE)
        #expect(UserfaultFD.Protection.unprotectWithoutWaking.rawValue == CUFFD_RWPROTECT_MODE_DONTWAKE)
        #expect(PageFault.Flags.write.rawValue == CUFFD_PAGEFAULT_FLAG_WRITE)
        #expect(PageFault.Flags.writeProtect.rawValue == CUFFD_PAGEFAULT_FLAG_WP)
        #expect(PageFault.Flags.minor.rawValue == CUFFD_PAGEFAULT_FLAG_MINOR)
        #expect(PageFault.Flags.readWriteProtect.rawValue == CUFFD_PAGEFAULT_FLAG_RWP)
    }

    @Test func memoryConstantsAreTheKernels() {
        #expect(MemoryProtection.none.rawValue == CUFFD_PROT_NONE)
        #expect(MemoryProtection.read.rawValue == CUFFD_PROT_READ)
        #expect(MemoryProtection.write.rawValue == CUFFD_PROT_WRITE)
        #expect(MemoryProtection.execute.rawValue == CUFFD_PROT_EXEC)
        #expect(Memfd.Seals.seal.rawValue == CUFFD_SEAL_SEAL)
        #expect(Memfd.Seals.shrink.rawValue == CUFFD_SEAL_SHRINK)
        #expect(Memfd.Seals.grow.rawValue == CUFFD_SEAL_GROW)
        #expect(Memfd.Seals.write.rawValue == CUFFD_SEAL_WRITE)
        #expect(Memfd.Seals.futureWrite.rawValue == CUFFD_SEAL_FUTURE_WRITE)
        typealias Categories = PagemapScan.Categories
        let categories: [(Categories, UInt64)] = [
            (.writeProtectAllowed, CUFFD_PAGE_IS_WPALLOWED), (.written, CUFFD_PAGE_IS_WRITTEN),
            (.file, CUFFD_PAGE_IS_FILE), (.present, CUFFD_PAGE_IS_PRESENT), (.swapped, CUFFD_PAGE_IS_SWAPPED),
            (.zeroPage, CUFFD_PAGE_IS_PFNZERO), (.huge, CUFFD_PAGE_IS_HUGE),
            (.softDirty, CUFFD_PAGE_IS_SOFT_DIRTY), (.guardPage, CUFFD_PAGE_IS_GUARD),
            (.accessed, CUFFD_PAGE_IS_ACCESSED),
        ]
        for (category, constant) in categories { #expect(category.rawValue == constant) }
    }

    /// A message's bytes come out of the fields where the kernel puts them.
    @Test func messageHasTheKernelsLayout() {
        #expect(MemoryLayout<cuffd_msg>.size == 32)
        var message = cuffd_msg()
        withUnsafeMutableBytes(of: &message) { bytes in
            for index in bytes.indices { bytes[index] = UInt8(index) }
        }
        #expect(message.event == 0)
        #expect(message.arg.pagefault.flags == 0x0F0E_0D0C_0B0A_0908)
        #expect(message.arg.pagefault.address == 0x1716_1514_1312_1110)
        #expect(message.arg.pagefault.ptid == 0x1B1A_1918)
        #expect(message.arg.fork.ufd == 0x0B0A_0908)
        #expect(message.arg.remap.len == 0x1F1E_1D1C_1B1A_1918)
        #expect(message.arg.remove.end == 0x1716_1514_1312_1110)
    }

    @Test func descriptionsNameTheBits() {
        #expect(Features([.move, .poison]).description == "[POISON, MOVE]")
        #expect(Features(rawValue: 1 << 40 | 1).description == "[PAGEFAULT_FLAG_WP, 0x10000000000]")
        #expect(Ioctls(rawValue: 0x8000_0000_0000_0003).description == "[REGISTER, UNREGISTER, API]")
        #expect(UserfaultFD.RegisterModes([.missing, .minor]).description == "[MISSING, MINOR]")
        #expect(PageFault.Flags().description == "[]")
        #expect(PageSize.twoMiB.description == "2 MiB")
        let fault = PageFault(address: 0x7000, flags: [.write, .writeProtect], threadID: 7)
        #expect(fault.description == "writeProtect fault at 0x7000 [WRITE, WP] by thread 7")
    }
}
