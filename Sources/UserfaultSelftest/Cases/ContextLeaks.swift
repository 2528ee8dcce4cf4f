import Glibc
import UserfaultFD

/// What the kernel keeps for a userfaultfd is given back when the last descriptor is closed, whatever it was used for.
///
/// The kernel counts these objects for root; one more for each descriptor that was closed is a leak.
enum ContextLeakCases: CaseTheme {
    static let cases: [SelftestCase] = [
        leakCase("context-freed", "opened, registered and closed") { _ in
            let guarded = try Guarded()
            try guarded.uffd.unregister(guarded.range)
            _ = guarded.uffd.rawHandshake(features: 0)
        },
        leakCase("context-freed-fault", "that served a fault, or was closed before it did") { isFirst in
            let guarded = try Guarded()
            let touch = try Touch.read(guarded.range.start)
            try guarded.uffd.waitBlocked(1)
            if isFirst {
                try guarded.uffd.expectFault(at: guarded.range.start, [])
                try guarded.uffd.zeropage(guarded.range)
            } else {
                try guarded.uffd.close()
            }
            try touch.finish(with: 0)
        },
        leakCase("context-freed-event", "whose event was read, or was closed before it was", features: .eventRemove) {
            isFirst in
            let guarded = try Guarded(features: .eventRemove)
            let range = guarded.range
            let call = try BackgroundCall { RawMemory.advise(range, .dontNeed) }
            try call.waitBlocked(on: guarded.uffd)
            if isFirst {
                try guarded.uffd.expectRemove(range)
            } else {
                try guarded.uffd.close()
            }
            try call.finish()
        },
        leakCase("context-freed-fork", "that had a child's, which was read or was not", features: .eventFork) {
            isFirst in
            let guarded = try Guarded(features: .eventFork)
            let range = guarded.range
            let fork = try BackgroundCall { try Child([.pagemap(range.start)], sharesDescriptors: true) }
            try fork.waitBlocked(on: guarded.uffd)
            if isFirst {
                let child = try guarded.uffd.expectFork()
                try fork.finish().finish()
                try child.close()
            } else {
                try guarded.uffd.close()
                try fork.finish().finish()
            }
        },
    ]

    /// A page of memory that is registered, with its userfaultfd.
    private struct Guarded: ~Copyable {
        let uffd: UserfaultFD
        let range: AddressRange

        init(features: UserfaultFD.Features = []) throws {
            let uffd = try UserfaultFD(features: features)
            let range = try Mapping(anonymous: PageSize.base.bytes).release()
            try uffd.register(range, modes: .missing)
            self.uffd = uffd
            self.range = range
        }
    }

    private static let cache = "/sys/kernel/slab/userfaultfd_ctx_cache"

    /// A case that uses a userfaultfd many times, in either of two ways, and counts what is left.
    private static func leakCase(
        _ name: String, _ what: String, features: UserfaultFD.Features = [],
        _ use: @escaping @Sendable (_ isFirst: Bool) throws -> Void
    ) -> SelftestCase {
        SelftestCase(
            name, "closing a userfaultfd \(what), gives back all that the kernel keeps for it",
            requires: [
                .alone, .root, .features(features), .file("\(cache)/objects"), .writableFile("\(cache)/shrink"),
            ],
            limit: .seconds(30), covers: [.passedDescriptors]
        ) { context in
            let rounds = 16
            // The first round makes what is made once.
            for isFirst in [true, false] { try use(isFirst) }
            for isFirst in [true, false] {
                let added = try leastAdded(from: rounds / 2) { for _ in 0..<rounds { try use(isFirst) } }
                context.record("\(added) objects more after \(rounds) descriptors")
                try expect(
                    added < rounds / 2, "the kernel's objects of closed userfaultfds are freed",
                    seen: "\(added) more after \(rounds)")
            }
        }
    }

    /// How many objects the kernel holds more after a piece of work; as many as are a leak only if it is so every time.
    ///
    /// Other programs have userfaultfds as well, and the kernel counts whole blocks of objects while somebody takes some.
    private static func leastAdded(from leak: Int, _ work: () throws -> Void) throws -> Int {
        var least = Int.max
        for _ in 0..<4 where least >= leak {
            let before = try objects()
            try work()
            for looks in 0..<100 where least >= leak {
                least = min(least, try objects() - before)
                Waiting.giveWay(afterLooks: 256 + looks)
            }
        }
        return least
    }

    /// How many userfaultfds the kernel holds, those aside that it keeps in stock.
    private static func objects() throws -> Int {
        if let errno = ProcFile.write("1", to: "\(cache)/shrink") {
            throw CaseSkip("the cache cannot be shrunk: \(errno)")
        }
        let line = ProcFile.line("\(cache)/objects") ?? ""
        guard let count = line.split(separator: " ").first.flatMap({ Int($0) }) else {
            throw CaseSkip(kernel: "the kernel does not count its objects")
        }
        return count
    }
}
