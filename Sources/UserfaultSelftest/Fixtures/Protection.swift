import CUserfaultFD
import Glibc
package import UserfaultFD

/// A call that protects a range of pages, in the kernel's own form.
package enum ProtectCall: String, Sendable {
    case writeProtect, readWriteProtect

    package var request: UInt64 { self == .writeProtect ? CUFFD_IOC_WRITEPROTECT : CUFFD_IOC_RWPROTECT }
}

extension UserfaultFD {
    /// Makes a call that protects with any numbers at all.
    ///
    /// Answers 0 or the errno.
    package func raw(_ call: ProtectCall, start: UInt, count: Int, mode: UInt64) -> Int32 {
        var argument = cuffd_writeprotect(
            range: cuffd_range(start: UInt64(start), len: UInt64(bitPattern: Int64(count))), mode: mode)
        return rawIoctl(call.request, &argument)
    }

    /// Makes a call that protects a range of pages.
    ///
    /// Answers 0 or the errno.
    package func raw(_ call: ProtectCall, _ range: AddressRange, mode: UInt64) -> Int32 {
        raw(call, start: range.start, count: range.count, mode: mode)
    }
}

extension PagemapEntry {
    /// The entries of a range, one for each base page.
    package static func entries(of range: AddressRange) throws -> [PagemapEntry] {
        let pagemap = try OwnedDescriptor(opening: "/proc/self/pagemap")
        var words = [UInt64](repeating: 0, count: range.count / PageSize.base.bytes)
        let offset = Int(range.start / UInt(PageSize.base.bytes)) * 8
        let read = try words.withUnsafeMutableBytes { room throws in try pagemap.read(into: room, at: offset) }
        try expectEqual(read, words.count * 8, "bytes of /proc/self/pagemap")
        return words.map(PagemapEntry.init)
    }
}

extension Requirement {
    /// The userfaultfd bit in pagemap, which came with Linux 5.14 as this feature did.
    package static let pagemapProtection = Requirement.features(.minorShmem)
}

extension PagemapEntry {
    /// Whether ``isProtected`` tells anything on this kernel.
    package static let showsProtection = (try? UserfaultFD())?.supportedFeatures.contains(.minorShmem) ?? false
}

extension Area {
    /// Fails unless exactly these pages of the view carry the userfaultfd bit, each in all of its base pages.
    ///
    /// Kernels that do not show the bit are not asked.
    package func expectProtected(
        _ pages: [Int], _ when: String, file: String = #fileID, line: Int = #line
    ) throws {
        for index in 0..<pageCount where PagemapEntry.showsProtection {
            let entries = try PagemapEntry.entries(of: page(index))
            let wrong = entries.firstIndex { $0.isProtected != pages.contains(index) }
            try expect(
                wrong == nil, "page \(index) \(pages.contains(index) ? "protected" : "not protected") \(when)",
                seen: wrong.map { "base page \($0): \(entries[$0])" } ?? "", file: file, line: line)
        }
    }

    /// Fills the pages of the view with their patterns, by plain stores.
    package func fillView(seed: UInt8 = 0) {
        for index in 0..<pageCount {
            Pattern.write(seed: seed, page: index, at: address(index), count: pageSize.bytes)
        }
    }

    /// Has pages of the view swapped out; a skip where the kernel will not.
    ///
    /// - Parameters:
    ///   - pages: Which, all of them present.
    ///   - isProven: They have been swapped out before, so that it is a failure where they cannot be again.
    package func swapOut(_ pages: Range<Int>, isProven: Bool = false) throws {
        try alias?.advise(.dontNeed)
        let part = self.pages(pages)
        let isAnonymous = !(try PagemapEntry(of: part.start).isFile)
        try Self.waitSwappedOut("pages \(pages) are swapped out", isProven: isProven) {
            try view.advise(.pageOut, part)
            guard isAnonymous else { return try swappedBytes() >= part.count }
            return try PagemapEntry.entries(of: part).allSatisfy { $0.isSwapped && !$0.isPresent }
        }
    }

    /// Whether pages of the view that were filled through it are swapped out.
    package func hasSwappedPages() throws -> Bool {
        guard memory.isPrivate else { return try swappedBytes() > 0 }
        return try PagemapEntry.entries(of: range).contains { $0.isSwapped }
    }

    /// Tries again until pages are swapped out: one that another processor has just touched is not taken at once.
    ///
    /// - Parameters:
    ///   - isProven: They have been swapped out before, so that it is a failure, and no skip, where they cannot be.
    ///   - attempt: Tries, and tells whether they are.
    package static func waitSwappedOut(
        _ what: String, isProven: Bool, _ attempt: () throws -> Bool
    ) throws {
        do {
            try Waiting.until(what, within: isProven ? Waiting.patience : Waiting.ordinary, attempt)
        } catch let failure as CaseFailure {
            if isProven { throw failure }
            throw CaseSkip(thisTime: "MADV_PAGEOUT did not swap the pages out")
        }
    }

    /// How much of the file is swapped out, in bytes.
    ///
    /// What the swap cache still holds counts too.
    package func swappedBytes() throws -> Int {
        try MappingAccount(holding: aliasAddress(0))["Swap"] << 10
    }
}
