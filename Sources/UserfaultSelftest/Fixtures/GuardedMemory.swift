import SystemPackage
package import UserfaultFD

/// Anonymous memory whose missing pages are reported, with its userfaultfd: for cases about the descriptor, which the
/// sort of memory does not matter to.
///
/// A class, so that threads can share it.
package final class GuardedMemory: Sendable {
    package let uffd: UserfaultFD
    package let memory: Mapping

    package init(
        pages: Int, features: UserfaultFD.Features = [],
        options: UserfaultFD.OpenOptions = UserfaultFD.OpenOptions()
    ) throws {
        uffd = try UserfaultFD(features: features, options: options)
        memory = try Mapping(anonymous: pages * PageSize.base.bytes)
        try uffd.register(memory.range, modes: .missing)
        // Threads and the kernel know nothing of references: the memory stays until the process ends.
        _ = Unmanaged.passRetained(self)
    }

    package func page(_ index: Int) -> AddressRange { memory.page(index) }
    package func address(_ index: Int) -> UInt { memory.page(index).start }

    /// Touches pages one after another, each seen as waiting before the next: messages come in this order.
    package func touch(_ pages: Range<Int>, file: String = #fileID, line: Int = #line) throws -> [Touch] {
        let before = try uffd.status().total
        return try pages.enumerated().map { index, page in
            let touch = try Touch.read(address(page))
            try uffd.waitBlocked(before + index + 1, file: file, line: line)
            try touch.thread.waitAsleep(file: file, line: line)
            return touch
        }
    }

    /// Fills every page that is missing with zeros, and waits for all accesses.
    package func release(_ touches: [Touch], file: String = #fileID, line: Int = #line) throws {
        for index in 0..<memory.pageCount {
            try expectOne(
                of: [.done(page(index).count), .failed(.fileExists)], uffd.raw(.zeropage, page(index)),
                "ZEROPAGE of page \(index)", file: file, line: line)
        }
        try uffd.wake(memory.range)
        for touch in touches { try touch.finish("every page is filled", file: file, line: line) }
        try uffd.expectWaiters(pending: 0, total: 0, "when every page is filled", file: file, line: line)
    }
}
