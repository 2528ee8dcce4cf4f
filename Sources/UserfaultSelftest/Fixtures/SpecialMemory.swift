import CSelftestSupport
import Glibc
import SystemPackage
package import UserfaultFD

/// Memory of every sort that a process can have, for the question which of it can be registered.
package struct SpecialMemory: Sendable {
    /// Like what the memory behaves when it is registered.
    package enum Likeness: Sendable {
        case anonymous, shmem
        /// As anonymous memory, but not for RWP.
        case inaccessible
        /// Not at all, but for WP alone by a descriptor with WP_ASYNC.
        case file
        /// Not at all.
        case driver
    }

    package let name: String
    package let likeness: Likeness
    package let page: AddressRange

    /// One page of each sort that there is here.
    ///
    /// The mappings stay until the process ends.
    package static func all(_ context: CaseContext) throws -> [SpecialMemory] {
        let page = PageSize.base.bytes
        func own(_ mapping: consuming Mapping) -> AddressRange { mapping.release() }
        var all = [
            SpecialMemory(name: "private anonymous", likeness: .anonymous, page: own(try Mapping(anonymous: page))),
            SpecialMemory(
                name: "read-only anonymous", likeness: .anonymous,
                page: own(try Mapping(anonymous: page, protection: .read))),
            SpecialMemory(
                name: "inaccessible anonymous", likeness: .inaccessible,
                page: own(try Mapping(anonymous: page, protection: .none))),
            SpecialMemory(
                name: "shared anonymous", likeness: .shmem,
                page: own(try Mapping(anonymous: page, sharing: .shared))),
        ]
        do {
            let zero = try FileDescriptor.open("/dev/zero", .readWrite, options: .closeOnExec)
            all += [
                SpecialMemory(
                    name: "private /dev/zero", likeness: .anonymous,
                    page: own(try Mapping(file: zero, count: page, sharing: .private))),
                SpecialMemory(
                    name: "shared /dev/zero", likeness: .shmem, page: own(try Mapping(file: zero, count: page))),
            ]
        } catch Errno.noSuchFileOrDirectory {
            context.record("not tried: memory of /dev/zero, because this host has no /dev/zero")
        }
        func add(_ name: String, _ likeness: Likeness, _ find: (inout UInt) -> Int32) {
            var address: UInt = 0
            let answer = find(&address)
            guard answer == 0 else { return context.record("no \(name): errno \(-answer)") }
            all.append(
                SpecialMemory(name: name, likeness: likeness, page: AddressRange(start: address, count: page)))
        }
        add("heap", .anonymous) { css_heap_pages(&$0, page) }
        add("System V segment", .file) { css_sysv_segment(&$0, page) }
        add("AIO ring", .driver) { css_aio_ring(&$0) }
        for (name, likeness) in [("[stack]", .anonymous), ("[vdso]", .driver), ("[vvar]", .driver)]
            as [(String, Likeness)]
        {
            guard let range = mapping(named: name) else { continue }
            all.append(
                SpecialMemory(name: name, likeness: likeness, page: AddressRange(start: range.start, count: page)))
        }
        if let file = try? FileDescriptor.open("/sys/kernel/btf/vmlinux", .readOnly, options: .closeOnExec) {
            add("BTF of the kernel", .driver) { address in
                guard let mapping = try? Mapping(file: file, count: page, sharing: .private, protection: .read) else {
                    return ENODEV
                }
                address = mapping.release().start
                return 0
            }
        }
        if let file = try regularFile() {
            all.append(SpecialMemory(name: "regular file", likeness: .file, page: file))
        } else {
            context.record("no regular file outside of a tmpfs")
        }
        return all
    }

    /// A page of a file that no tmpfs holds, mapped privately so that it can be made writable.
    ///
    /// This program's own file does where it lies on a disk; else root can have a file on a ramfs.
    private static func regularFile() throws -> AddressRange? {
        let page = PageSize.base.bytes
        var file = try FileDescriptor.open("/proc/self/exe", .readOnly, options: .closeOnExec)
        if css_is_tmpfs("/proc/self/exe") {
            guard css_unshare_mounts() == 0, css_mount_ramfs("/tmp") == 0 else { return nil }
            file = try FileDescriptor.open(
                "/tmp/file", .readWrite, options: [.create, .closeOnExec], permissions: .ownerReadWrite)
            _ = try file.writeAll([UInt8](repeating: 1, count: page))
        }
        let mapping = try Mapping(file: file, count: page, sharing: .private, protection: .read)
        return mapping.release()
    }

    private static func mapping(named name: String) -> AddressRange? {
        let line = (ProcFile.text("/proc/self/maps") ?? "").split(separator: "\n").first { $0.hasSuffix(name) }
        let ends = line?.split(separator: " ").first?.split(separator: "-").compactMap { UInt($0, radix: 16) }
        guard let ends, ends.count == 2 else { return nil }
        return AddressRange(start: ends[0], end: ends[1])
    }

    /// Whether the page can be registered by a descriptor without WP_ASYNC.
    package func takes(_ modes: UserfaultFD.RegisterModes, _ features: UserfaultFD.Features) -> Bool {
        switch likeness {
        case .anonymous: modes.areLawful(on: .anon, features)
        case .shmem: modes.areLawful(on: .shmem, features)
        case .inaccessible: modes.areLawful(on: .anon, features) && !modes.contains(.readWriteProtect)
        case .file, .driver: false
        }
    }
}
