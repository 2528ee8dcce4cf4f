import SystemPackage
import UserfaultFD

/// While an event is on its way, nothing that fills or protects pages may act: EAGAIN, whatever the arguments.
enum MappingChangingCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "mmap-changing", on: [.shmem],
            "while a REMOVE event is outstanding every call that fills pages answers EAGAIN before it looks at anything",
            requires: [.missingFaults, .features([.eventRemove, .move, .poison, .minorShmem])], covers: [.upstream]
        ) { context in
            try gates(context, FillCall.allCases)
        },
        SelftestCase(
            "mmap-changing-fills", on: .all,
            "while a REMOVE event is outstanding the calls that this kernel has answer EAGAIN, and work afterwards",
            requires: [.missingFaults, .features(.eventRemove)], covers: [.removeEvent]
        ) { context in
            let features = try UserfaultFD().supportedFeatures
            try gates(context, FillCall.allCases.filter { features.isSuperset(of: $0.features) })
        },
        SelftestCase(
            "mmap-changing-protect", on: .all,
            "while a REMOVE event is outstanding WRITEPROTECT answers EAGAIN and changes nothing; REGISTER, WAKE work",
            requires: [.missingFaults, .writeProtectFaults, .features(.eventRemove)], covers: [.removeEvent]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: .eventRemove)
            try area.registerFilled(uffd, modes: [.missing, .writeProtect])
            let call = try BackgroundCall {
                try area.view.advise(area.memory.isPrivate ? .dontNeed : .remove, area.page(3))
            }
            try call.waitEvent(of: uffd)
            try area.skipIfRefused(call, context)
            for protection in [UserfaultFD.Protection.protect, .unprotect] {
                let error = try expectThrows(UserfaultError.self, "WRITEPROTECT is refused") {
                    () throws(UserfaultError) in
                    try uffd.writeProtect(area.page(0), protection)
                }
                try expectEqual(error.errno, .resourceTemporarilyUnavailable, "errno of WRITEPROTECT")
                try expectEqual(error.reason, .mappingIsChanging, "what the library makes of it")
            }
            try expectGated(.writeProtect, area, uffd)
            try area.expectProtected([], "after a refusal")
            try uffd.register(area.range, modes: [.missing, .writeProtect])
            try uffd.wake(area.range)
            try uffd.expectRemove(area.page(3))
            try call.finish()
            try uffd.writeProtect(area.page(0), .protect)
            try area.expectProtected([0], "afterwards")
        },
        SelftestCase(
            "mmap-changing-rwprotect", on: .all,
            "while a REMOVE event is outstanding RWPROTECT answers EAGAIN",
            requires: [.missingFaults, .features([.eventRemove, .readWriteProtect])],
            covers: [.removeEvent, .readWriteProtect]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: [.eventRemove, .readWriteProtect])
            try area.registerFilled(uffd, modes: [.missing, .readWriteProtect])
            let call = try BackgroundCall {
                try area.view.advise(area.memory.isPrivate ? .dontNeed : .remove, area.page(3))
            }
            try call.waitBlocked(on: uffd)
            let error = try expectThrows(UserfaultError.self, "RWPROTECT is refused") { () throws(UserfaultError) in
                try uffd.rwProtect(area.page(0), .protect)
            }
            try expectEqual(error.errno, .resourceTemporarilyUnavailable, "errno of RWPROTECT")
            try expectGated(.readWriteProtect, area, uffd)
            try uffd.expectRemove(area.page(3))
            try call.finish()
            try uffd.rwProtect(area.page(0), .protect)
        },
        SelftestCase(
            "mmap-changing-every-event", on: [.anon, .shmem],
            "UNMAP, REMAP and FORK raise the gate as REMOVE does, until the process that changed its memory goes on",
            requires: [.root, .missingFaults, .features(.events)], covers: [.unmapEvent, .remapEvent, .forkEvent]
        ) { context in
            let area = try Area(context, pages: 8)
            let uffd = try area.registered(.missing, features: .events)
            let target = try reserve(area.pageSize.bytes)
            let changes: [(String, @Sendable () throws -> Void)] = [
                ("madvise", { try area.zapView(area.page(7)) }),
                ("munmap", { try AddressSpace.unmap(area.page(6)) }),
                ("mremap", { _ = try Remapping.move(area.page(5), to: target) }),
                ("fork", { try Child([.pause]).kill() }),
            ]
            for (index, (name, change)) in changes.enumerated() {
                let source = try area.source(index..<index + 1)
                let call = try BackgroundCall(name, change)
                try call.waitBlocked(on: uffd)
                try expectGated(uffd.raw(.copy, area.page(index), from: source), context, "COPY during \(name)")
                // mremap makes two events: the move, and what it leaves.
                try Waiting.until("\(name) goes on once its events are read") {
                    var batch = EventBatch(capacity: 1)
                    try uffd.read(into: &batch)
                    return call.isFinished
                }
                try call.finish()
                try expectEqual(
                    uffd.raw(.copy, area.page(index), from: source), .done(area.pageSize.bytes), "COPY after \(name)")
                try area.expectView(index)
            }
        },
        SelftestCase(
            "mmap-changing-two-events", on: [.anon, .shmem],
            "two outstanding events keep the gate up until both are read and their callers have gone on",
            requires: [.missingFaults, .features(.eventRemove)], covers: [.removeEvent]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered(.missing, features: .eventRemove)
            let first = try BackgroundCall { try area.zapView(area.page(2)) }
            try first.waitBlocked()
            let second = try BackgroundCall { try area.zapView(area.page(3)) }
            try second.waitBlocked()
            try uffd.expectRemove(area.page(2))
            try first.finish()
            try second.waitBlocked()
            let source = try area.source(0..<1)
            let between = uffd.raw(.copy, area.page(0), from: source)
            if between == .done(area.pageSize.bytes) {
                // A single flag, before the counter of Linux 5.19.
                try expect(!uffd.supportedFeatures.contains(.writeProtectUnpopulated), "the gate counts its events")
                context.record("the first of two events lowered the gate")
            } else {
                try expectGated(between, context, "COPY between two events")
            }
            try uffd.expectRemove(area.page(3))
            try second.finish()
            try expectEqual(
                uffd.raw(.copy, area.page(1), from: source), .done(area.pageSize.bytes), "COPY after both events")
        },
    ]

    /// Fails unless a call that protects answers EAGAIN also where its argument is wrong, or cannot be read.
    private static func expectGated(_ call: ProtectCall, _ area: Area, _ uffd: borrowing UserfaultFD) throws {
        let wrong: [(String, Int32)] = [
            ("an unaligned start", uffd.raw(call, start: area.address(0) + 1, count: area.pageSize.bytes, mode: 0)),
            ("an unknown mode", uffd.raw(call, area.page(0), mode: 1 << 40)),
            ("an argument that cannot be read", uffd.rawIoctl(call.request, UnsafeMutableRawPointer(bitPattern: 8))),
        ]
        for (what, errno) in wrong {
            try expectErrno(
                errno, .resourceTemporarilyUnavailable, "\(call) with \(what), before anything is looked at")
        }
    }

    /// Every call, with arguments that are all zero, while a madvise waits for its event to be read.
    private static func gates(_ context: CaseContext, _ calls: [FillCall]) throws {
        let area = try Area(context)
        let uffd = try area.registered(.missing, features: .eventRemove)
        let call = try BackgroundCall {
            try area.view.advise(area.memory.isPrivate ? .dontNeed : .remove, area.page(3))
        }
        try call.waitEvent(of: uffd)
        try area.skipIfRefused(call, context)
        var words: Set<Int64> = []
        for fill in calls {
            let answers = [
                ("zeros for arguments", uffd.raw(fill, start: 0, count: 0)),
                ("good arguments", uffd.raw(fill, area.page(0), source: area.address(1))),
            ]
            for (arguments, answer) in answers {
                try expectGated(answer, context, "\(fill) with \(arguments)")
                words.insert(answer.word)
            }
        }
        try expectEqual(words.count, 1, "ways of the calls with their output words: all write them, or none")
        if uffd.supportedFeatures.contains(.readWriteProtect) {
            try expect(!words.contains(RawAnswer.untouched), "Linux 7.3 writes the output words")
        }
        try expect(!PagemapEntry(of: area.address(0)).isPresent, "page 0 is still missing")
        try uffd.expectRemove(area.page(3))
        try call.finish()
        try expectEqual(
            uffd.raw(.copy, area.page(0), from: area.source(0..<1)), .done(area.pageSize.bytes), "COPY afterwards")
        try area.expectView(0)
    }

    /// EAGAIN, with a word that says so; Linux 5.10 and 6.1 leave the word alone.
    private static func expectGated(_ answer: RawAnswer, _ context: CaseContext, _ what: String) throws {
        try expectOne(
            of: [.failed(.resourceTemporarilyUnavailable), .refused(.resourceTemporarilyUnavailable)], answer, what)
        if answer.word == RawAnswer.untouched { context.record("\(what) left its output word untouched") }
    }
}
