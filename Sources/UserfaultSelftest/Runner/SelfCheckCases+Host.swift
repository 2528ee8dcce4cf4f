import CSelftestSupport
import Glibc
import UserfaultFD

/// Hidden cases that check what the runner provides on the host, and the C functions that cases use.
extension SelfCheckCases {
    static let hostCases = [
        SelftestCase(
            "selfcheck-host-hold", "a killed run leaves nothing behind",
            requires: [
                .hugePages(2), .swap, .transparentHugePages, .shmemHugePages, .setting(.unprivilegedUserfaultfd, "1"),
                .memoryGroup,
            ], limit: .seconds(60)
        ) { context in
            try context.joinMemoryGroup(limit: 64 << 20)
            print("holding")
            while true { pause() }
        },
        SelftestCase(
            "selfcheck-host-provided", "what a case requires of the host is there",
            requires: [.hugePages(2), .swap, .setting(.unprivilegedUserfaultfd, "1"), .memoryGroup, .privateMounts]
        ) { context in
            try expect(HugePagePool.free >= 2, "two free huge pages", seen: "\(HugePagePool.free)")
            try expect(ProcFile.number("SwapFree", in: "/proc/meminfo") ?? 0 > 0, "free swap space")
            try expectEqual(SystemSetting.unprivilegedUserfaultfd.current, "1", "the setting")
            try context.joinMemoryGroup(limit: 64 << 20)
            let directory = try context.mountPrivateTmpfs(options: "size=64k")
            try expect(css_is_tmpfs(directory), "\(directory) is a tmpfs of this process")
        },
        SelftestCase("selfcheck-host-restored", "a setting is put back for a case that does not ask for it") { _ in
            try expectEqual(SystemSetting.unprivilegedUserfaultfd.current, "0", "the setting")
        },
    ]

    static let supportCases = [
        SelftestCase("selfcheck-descriptors", "a case inherits standard descriptors and its channel, nothing else") {
            _ in
            let descriptors = ProcFile.entries("/proc/self/fd").filter { fcntl(Int32($0) ?? -1, F_GETFD) >= 0 }
            try expectEqual(descriptors, ["0", "1", "2", "3"], "the descriptors")
        },
        SelftestCase("selfcheck-guarded", "an access that faults is reported and survived, on any thread") { _ in
            let threads = try (0..<4).map { _ in try CheckThread { try guardedAccesses() } }
            for thread in threads { try thread.join() }
        },
        SelftestCase("selfcheck-children", "a forked child does its steps and tells what came of them") { _ in
            let size = PageSize.base.bytes
            let steps = css_steps_create(4)!
            let page = mmap(nil, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)!
            page.storeBytes(of: 7, as: UInt8.self)
            let address = UInt(bitPattern: page)
            steps[0] = css_step(css_step_load8, at: address)
            steps[1] = css_step(css_step_pause, at: 0)
            steps[2] = css_step(css_step_store8, at: 0)
            steps[3] = css_step(css_step_count8, at: address, length: UInt64(size))
            var child = css_child()
            try expectEqual(css_child_start(&child, steps, 4, false), 0, "the fork's answer")
            var byte: UInt8 = 0
            try expectEqual(read(child.reports, &byte, 1), 1, "reports of the pause")
            try expectEqual(steps[1].done, 0, "the pause's end before the order")
            _ = write(child.orders, &byte, 1)
            var status: Int32 = 0
            try expectEqual(css_child_wait(&child, &status), 0, "the wait's answer")
            css_child_close(&child)
            try expectEqual(
                (0..<4).map { steps[$0].result }, [7, 0, Int64(-SIGSEGV), Int64(size - 1)], "the answers of the steps")
        },
    ]

    private static func guardedAccesses() throws {
        let size = PageSize.base.bytes
        var fault = css_fault()
        var byte: UInt8 = 0
        try expect(!css_load8(0, &byte, &fault), "a load from nowhere faults")
        try expectEqual(fault.signal, SIGSEGV, "the signal")
        let file = memfd()
        defer { close(file) }
        let mapping = mmap(nil, 2 * size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)!
        defer { munmap(mapping, 2 * size) }
        let address = UInt(bitPattern: mapping)
        try expect(css_store8(address, 3, &fault) && css_load8(address, &byte, &fault), "the first page is there")
        try expectEqual(byte, 3, "the byte")
        try expect(!css_copy_in(&byte, address + UInt(size), 1, &fault), "a load past the end of the file faults")
        try expectEqual(fault.signal, SIGBUS, "the signal")
        try expectEqual(fault.address, address + UInt(size), "the address")
        try expect(
            !css_copy_out(address + UInt(size - 1), [1, 2], 2, &fault),
            "a copy that runs past the end of the file faults")
    }

    /// A file of one page that has no name.
    private static func memfd() -> Int32 {
        let file = tmpfile()!
        let descriptor = dup(fileno(file))
        fclose(file)
        ftruncate(descriptor, PageSize.base.bytes)
        return descriptor
    }
}

extension css_step {
    fileprivate init(_ kind: css_step_kind, at address: UInt, length: UInt64 = 0) {
        self.init()
        self.kind = kind
        self.address = address
        self.length = length
    }
}

/// A thread whose error is thrown where it is joined.
private final class CheckThread {
    private let body: () throws -> Void
    private var handle = pthread_t()
    private var failure: (any Error)?

    init(_ body: @escaping () throws -> Void) throws {
        self.body = body
        let this = Unmanaged.passUnretained(self).toOpaque()
        let answer = pthread_create(
            &handle, nil,
            { argument in
                let thread = Unmanaged<CheckThread>.fromOpaque(argument!).takeUnretainedValue()
                do { try thread.body() } catch { thread.failure = error }
                return nil
            }, this)
        try expectEqual(answer, 0, "the thread's start")
    }

    func join() throws {
        pthread_join(handle, nil)
        if let failure { throw failure }
    }
}
