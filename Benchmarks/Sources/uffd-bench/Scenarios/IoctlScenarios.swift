import CBenchBaseline
import SystemPackage
import UserfaultFD

/// `ioctl/CALL/PAGES`: the calls that fill and protect pages, in a loop, without any fault.
enum IoctlScenarios {
    private static let calls: [(name: String, call: cbb_call, kind: Memory.Kind, features: UserfaultFD.Features)] = [
        ("copy", cbb_copy, .anonymous, []), ("zeropage", cbb_zeropage, .anonymous, []),
        ("continue", cbb_continue, .shared, .minorShmem), ("move", cbb_move, .anonymous, .move),
        ("poison", cbb_poison, .anonymous, .poison),
        ("writeprotect", cbb_writeprotect, .anonymous, .writeProtect),
        ("rwprotect", cbb_rwprotect, .anonymous, .readWriteProtect),
    ]

    static var all: [Scenario] {
        calls.flatMap { call in
            [1, 16, 256, 512].map { pages in
                Scenario("ioctl/\(call.name)/\(pages)", .page) { try variants(call, chunk: pages, $0) }
            }
        } + [Scenario("ioctl/copy-2mib/1", .hugePage, prepare: hugePages)]
    }

    private static func variants(
        _ call: (name: String, call: cbb_call, kind: Memory.Kind, features: UserfaultFD.Features), chunk: Int,
        _ settings: Settings
    ) throws -> [Variant] {
        let supported = try UserfaultFD().supportedFeatures
        guard supported.isSuperset(of: call.features) else {
            throw Unavailable(reason: "the kernel has no \(call.name)")
        }
        let memory = try Memory(call.kind, pages: settings.count(4096, quick: 1024))
        let runner = try Runner(memory, call.call, chunk: chunk)
        var variants = [
            Variant("c") { try runner.c() },
            Variant("swift", .time(atMost: chunk == 512 ? 1.03 : 1.05)) { try runner.swift() },
        ]
        if call.call == cbb_copy || call.call == cbb_move {
            variants.append(Variant(reference: "memcpy") { try runner.memcpy() })
        }
        if [cbb_copy, cbb_zeropage, cbb_continue].contains(call.call) {
            variants.append(
                Variant(reference: "first touch") {
                    Sample(try memory.firstTouch(writing: call.call == cbb_copy), units: memory.pages)
                })
        }
        return variants
    }

    private static func hugePages(_ settings: Settings) throws -> [Variant] {
        let memory = try Memory(.hugePages, pages: 8)
        let runner = try Runner(memory, cbb_copy, chunk: 1)
        return [
            Variant("c") { try runner.c() },
            Variant("swift", .time(atMost: 1.03)) { try runner.swift() },
            Variant(reference: "memcpy") { try runner.memcpy() },
        ]
    }

    /// One call over the whole memory, again and again.
    private final class Runner {
        private let memory: Memory
        private let call: cbb_call
        private let chunk: Int
        private let uffd: UserfaultFD
        /// Whether the pages are where the call brings them.
        private var isFilled = false

        init(_ memory: Memory, _ call: cbb_call, chunk: Int) throws {
            self.memory = memory
            self.call = call
            self.chunk = chunk * memory.pageSize
            uffd = try UserfaultFD(features: call == cbb_rwprotect ? .readWriteProtect : [])
            let modes: UserfaultFD.RegisterModes =
                switch call {
                case cbb_continue: .minor
                case cbb_writeprotect: .writeProtect
                case cbb_rwprotect: .readWriteProtect
                default: .missing
                }
            try uffd.register(memory.view.range, modes: modes)
            // Moved back and forth.
            if call == cbb_move { try uffd.register(memory.source.range, modes: .missing) }
            if call == cbb_writeprotect || call == cbb_rwprotect { memory.populate() }
        }

        /// Brings the memory into the state in which the call works.
        private func reset() throws {
            switch call {
            case cbb_writeprotect: try uffd.writeProtect(memory.view.range, .unprotect)
            case cbb_rwprotect: try uffd.rwProtect(memory.view.range, .unprotect)
            case cbb_move:
                if isFilled { try uffd.move(from: memory.view.range.start, to: memory.source.range) }
            default: try memory.empty()
            }
            isFilled = false
        }

        private func sample(_ time: UInt64) throws -> Sample {
            guard time > 0 else { throw Mismeasured(description: "a call failed") }
            isFilled = true
            return Sample(time, units: memory.pages)
        }

        /// Measures; anew where pages could not be moved, because the kernel had its hands on one of them.
        private func measure(_ once: () throws -> UInt64) throws -> Sample {
            for _ in 0..<4 where call == cbb_move {
                do {
                    try reset()
                    return try sample(once())
                } catch {
                    try refill()
                }
            }
            try reset()
            return try sample(once())
        }

        /// Puts all pages back where they are moved from.
        private func refill() throws {
            try memory.empty()
            try memory.source.advise(.dontNeed)
            let content = try Mapping(anonymous: memory.bytes, options: .populate)
            try uffd.copy(from: content.range.start, to: memory.source.range)
            isFilled = false
        }

        func c() throws -> Sample {
            try measure {
                uffd.withUnsafeDescriptor {
                    cbb_fill(
                        $0.rawValue, call, memory.base, UInt64(memory.source.range.start), UInt64(memory.bytes),
                        UInt64(chunk))
                }
            }
        }

        func swift() throws -> Sample {
            try measure {
                let start = cbb_now()
                try fill()
                return cbb_now() - start
            }
        }

        /// The loop of `cbb_fill` over the typed layer.
        private func fill() throws(UserfaultError) {
            let source = memory.source.range.start
            var offset = 0
            while offset < memory.bytes {
                let target = AddressRange(start: memory.view.range.start + UInt(offset), count: chunk)
                switch call {
                case cbb_copy: try uffd.copy(from: source + UInt(offset), to: target)
                case cbb_zeropage: try uffd.zeropage(target)
                case cbb_continue: try uffd.continue(target)
                case cbb_move: try uffd.move(from: source + UInt(offset), to: target)
                case cbb_poison: try uffd.poison(target)
                case cbb_writeprotect: try uffd.writeProtect(target, .protect)
                default: try uffd.rwProtect(target, .protect)
                }
                offset += chunk
            }
        }

        func memcpy() throws -> Sample {
            try reset()
            // Into pages that are there: the copy alone.
            let there = try Mapping(anonymous: memory.bytes, options: .populate)
            let time = cbb_memcpy(
                UInt64(there.range.start), UInt64(memory.source.range.start), UInt64(memory.bytes), memory.pageSize)
            return Sample(time, units: memory.pages)
        }
    }
}
