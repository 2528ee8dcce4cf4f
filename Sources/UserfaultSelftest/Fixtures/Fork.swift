import CSelftestSupport
package import SystemPackage
package import UserfaultFD

extension Child {
    /// Forks with `EVENT_FORK` on, while a thread reads the event; ``descriptor`` is then the child's own userfaultfd.
    package static func reported(by descriptor: Handler.Descriptor, _ steps: [Step]) throws -> Child {
        let reader = UnsafeMutablePointer<css_fork_reader>.allocate(capacity: 1)
        defer { reader.deallocate() }
        reader.initialize(to: css_fork_reader())
        reader.pointee.userfaultfd = descriptor.uffd.withUnsafeDescriptor { $0.rawValue }
        reader.pointee.milliseconds = Waiting.milliseconds
        try expectEqual(css_fork_reader_start(reader), 0, "answer of starting the reader of the fork event")
        let child = Result { try Child(steps) }
        css_fork_reader_join(reader)
        try expectEqual(reader.pointee.answer, 32, "bytes of the fork event")
        let message = withUnsafeBytes(of: reader.pointee.message) { Array($0) }
        try expectEqual(message[0], 0x13, "event that the fork makes")
        let own = message.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 8, as: Int32.self) }
        let started = try child.get()
        started.descriptor = Handler.Descriptor(try UserfaultFD(adopting: own))
        return started
    }
}

/// Memory that is pinned as a driver pins it: a fork must copy its pages at once, and nothing may move them.
package final class Pin {
    private var ring = css_ring()
    private let range: AddressRange

    /// Pins memory for writing, as a registered buffer of an io_uring; a skip where that cannot be had.
    package init(_ range: AddressRange) throws {
        self.range = range
        let answer = css_pin_by_io_uring(&ring, range.start, range.count)
        guard answer == 0 else {
            throw CaseSkip("no pinned page: registering an io_uring buffer answers \(Errno(rawValue: -answer))")
        }
    }

    /// Stores a byte at the start, as hardware does: no page table is asked.
    package func store(_ byte: UInt8, file: String = #fileID, line: Int = #line) throws {
        try expectEqual(
            withUnsafeBytes(of: byte) { css_store_by_pin(&ring, range.start, $0.baseAddress, 1) }, 1,
            "bytes stored through a pin", file: file, line: line)
    }

    package func release() throws {
        try expectEqual(css_unpin_by_io_uring(&ring), 0, "answer of unregistering the io_uring buffer")
    }
}

/// How a child can pin memory for reading only.
package enum ReadPin {
    case gupTest
    /// A nameless file that is written without the page cache: the memory is pinned during a write.
    case directFile(FileDescriptor)

    /// The way that this host has, or `nil`.
    package static func available() -> ReadPin? {
        if FileAccess.isWritable("/sys/kernel/debug/gup_test") { return .gupTest }
        for directory in ["/var/tmp", "/tmp", "."] where !css_is_tmpfs(directory) {
            let file = css_open_direct(directory)
            if file >= 0 { return .directFile(FileDescriptor(rawValue: file)) }
        }
        return nil
    }

    package func step(_ range: AddressRange) -> Child.Step {
        switch self {
        case .gupTest: .pin(range, nil)
        case .directFile(let file): .pin(range, file.rawValue)
        }
    }
}

private enum FileAccess {
    static func isWritable(_ path: String) -> Bool {
        guard let file = try? FileDescriptor.open(path, .readWrite, options: .closeOnExec) else { return false }
        try? file.close()
        return true
    }
}
