import CSelftestSupport
import SystemPackage
import UserfaultFD

/// Signals to threads that wait for a fault.
enum SignalCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "signal-handler", on: .eachKind,
            "a signal's handler runs while its thread waits for a fault, which is then reported anew",
            covers: [.signals]
        ) { context in
            try checked(css_catch_signal(true))
            for kind in PageFault.Kind.lawful(on: context.memory, try UserfaultFD().supportedFeatures) {
                for isRead in [true, false] { try interrupts(kind, context, isRead: isRead) }
            }
        },
        SelftestCase(
            "signal-leaves", "a handler that jumps out of an access takes the unread message along",
            covers: [.signals, .polling]
        ) { _ in
            try checked(css_catch_signal_by_leaving())
            let guarded = try GuardedMemory(pages: 2)
            let address = guarded.address(0)
            let leaver = try BackgroundCall {
                _ = css_unblock_signal()
                var byte: UInt8 = 0
                return css_load8_or_leave(address, &byte)
            }
            try guarded.uffd.waitBlocked(1)
            try leaver.thread.waitAsleep()
            let other = try guarded.touch(1..<2)
            try guarded.uffd.expectWaiters(pending: 2, total: 2, "before the signal")
            try checked(css_signal_thread(leaver.thread.threadID))
            try expectEqual(leaver.finish("the thread leaves its access"), false, "whether the access was made")
            try guarded.uffd.expectWaiters(pending: 1, total: 1, "after the signal")
            try guarded.uffd.expectFault(at: guarded.address(1), [])
            try expectEqual(guarded.uffd.rawPoll(), 0, "poll after the last message")
            try guarded.uffd.expectNoMessage("the message of the thread that left is gone")
            try guarded.release(other)
        },
    ]

    private static func interrupts(_ kind: PageFault.Kind, _ context: CaseContext, isRead: Bool) throws {
        let area = try Area(context, pages: 2)
        let uffd = try UserfaultFD(features: kind.features)
        try kind.arm(area, 0..<2, with: uffd)
        let address = area.address(1) + PageFault.Kind.offset
        let access = try BackgroundCall {
            _ = css_unblock_signal()
            return kind == .writeProtect ? Touch.store(address, 0xEE) : Touch.load(address)
        }
        try uffd.waitBlocked(1)
        for _ in 0..<2 {
            if isRead { try uffd.expectFault(at: area.address(1), kind.flags) }
            try access.thread.waitAsleep()
            let before = css_signals_caught()
            try checked(css_signal_thread(access.thread.threadID))
            try Waiting.until("the handler runs while the thread waits for a \(kind) fault") {
                css_signals_caught() == before + 1
            }
            // The old message is gone, the new one is there: never two, never none.
            try Waiting.until("the \(kind) fault is reported anew") { try uffd.status().pending == 1 }
            try uffd.expectWaiters(pending: 1, total: 1, "after the handler has run, \(kind) fault")
        }
        try uffd.expectFault(at: area.address(1), kind.flags)
        try uffd.expectNoMessage("there is one message for one waiting thread")
        try kind.resolve(area, 1, with: uffd)
        try expectEqual(access.finish(), .byte(kind.byte(1)), "outcome of the access, \(kind) fault")
        try uffd.expectWaiters(pending: 0, total: 0, "at the end")
    }
}
