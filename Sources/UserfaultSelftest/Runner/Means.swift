import CSelftestSupport
import Glibc
import Synchronization
import SystemPackage
import UserfaultFD

/// What the process of one result finds here: limits, privileges and speed, each measured by trying.
///
/// A process of its own measures them at the start of a run, under the same limits as the processes of the cases.
package struct Means: Codable, Sendable {
    /// How many descriptors can be opened besides those that the process starts with.
    var descriptors: Int
    /// How many threads can run besides the first.
    var threads: Int
    /// How much address space is left, in MiB.
    var addressSpace: Int
    /// How much memory can be locked, in KiB.
    var lockedMemory: Int
    /// How much fits on the tmpfs that cases use, in KiB; nil if this user can write to none.
    var tmpfsRoom: Int?
    /// Whether pagemap shows page frame numbers and `/proc/kpageflags` can be read.
    var pageFrames: Bool
    /// Whether this user can mount a tmpfs, and a hugetlbfs, in a mount namespace of a process' own.
    var tmpfsMounts: Bool
    var hugetlbfsMounts: Bool
    /// How slow the host is, see ``Slowness``.
    var slowness: Double

    /// What a run goes by that cannot measure: everything is there, and the host is an ordinary one.
    static let assumed = Means(
        descriptors: .max, threads: .max, addressSpace: .max, lockedMemory: .max, tmpfsRoom: .max, pageFrames: true,
        tmpfsMounts: true, hugetlbfsMounts: true, slowness: 1)

    /// What the process that measures is called where a result's process is called by its identity.
    static let identity = "measure"

    /// What a process is called that comes up and does nothing else.
    static let idleIdentity = "idle"

    /// Measures all of it, in a process that does nothing else.
    static func measured() -> Means {
        var means = Means(
            descriptors: openable(), threads: startable(), addressSpace: mappable(), lockedMemory: lockable(),
            tmpfsRoom: TmpfsRoom.best?.kibibytes, pageFrames: PageFrame.areVisible, tmpfsMounts: false,
            hugetlbfsMounts: false, slowness: Slowness.measured)
        // Last, because it hides what is mounted there.
        if css_unshare_mounts() == 0 {
            means.tmpfsMounts = css_mount_tmpfs("/tmp", "size=64k") == 0
            means.hugetlbfsMounts = css_mount_hugetlbfs("/tmp", "pagesize=\(Area.pageSize(of: .hugetlb).bytes)") == 0
        }
        return means
    }

    /// More than any case needs.
    private static let manyDescriptors = 256
    private static let manyThreads = 64
    static let muchAddressSpace = 4096
    private static let muchLockedMemory = 64 << 10

    private static func openable() -> Int {
        var open: [Int32] = []
        defer { open.forEach { _ = close($0) } }
        while open.count < manyDescriptors {
            let descriptor = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0)
            guard descriptor >= 0 else { break }
            open.append(descriptor)
        }
        return open.count
    }

    /// Each thread allocates, as those of the cases do.
    private static func startable() -> Int {
        let end = ThreadsEnd()
        var count = 0
        defer { end.come(to: count) }
        while count < manyThreads {
            let answer = Threads.start("measure") {
                free(malloc(4096))
                end.wait()
            }
            guard answer == 0 else { break }
            count += 1
        }
        return count
    }

    /// Holds threads until all are there that can be.
    private final class ThreadsEnd: Sendable {
        private let isHere = Atomic<Bool>(false)
        private let gone = Atomic<Int>(0)

        func wait() {
            while !isHere.load(ordering: .acquiring) { Threads.pause() }
            gone.add(1, ordering: .releasing)
        }

        func come(to count: Int) {
            isHere.store(true, ordering: .releasing)
            while gone.load(ordering: .acquiring) < count { Threads.pause() }
        }
    }

    private static func mappable() -> Int {
        mostThatWorks(upTo: muchAddressSpace, by: 32) { size in
            (try? Mapping(anonymous: size << 20, protection: .none, options: .noReserve)) != nil
        }
    }

    private static func lockable() -> Int {
        mostThatWorks(upTo: muchLockedMemory, by: 4) { size in
            guard let memory = try? Mapping(anonymous: size << 10) else { return false }
            return RawMemory.lock(memory.range) == 0
        }
    }

    /// The largest multiple of a step that works, found by halving what is in doubt.
    private static func mostThatWorks(upTo most: Int, by step: Int, _ works: (Int) -> Bool) -> Int {
        guard !works(most) else { return most }
        var (good, bad) = (0, most / step)
        while bad - good > 1 {
            let middle = (good + bad) / 2
            if works(middle * step) { good = middle } else { bad = middle }
        }
        return good * step
    }
}

extension Means {
    /// What each of several results has that run at the same time.
    ///
    /// Descriptors, addresses and locked memory are limited for each process; the others have to share.
    func shared(among jobs: Int) -> Means {
        var share = self
        if threads < Self.manyThreads { share.threads /= jobs }
        share.tmpfsRoom = tmpfsRoom.map { $0 == .max ? $0 : $0 / jobs }
        share.slowness *= max(1, Double(jobs) / Double(max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN)))))
        return share
    }

    /// Why a requirement of such means is not met, and the remedy; nil when it is.
    func shortage(of requirement: Requirement, for memory: MemoryType?) -> String? {
        func lacks(_ needed: Int, _ has: Int, _ what: String, _ remedy: String) -> String? {
            has >= needed ? nil : "needs \(needed) \(what), \(has) can be had: \(remedy)"
        }
        return switch requirement {
        case .descriptors(let count):
            lacks(count, descriptors, "more descriptors", "raise the limit of open files (ulimit -n)")
        case .threads(let count):
            lacks(
                count, threads, "more threads",
                "raise the limits of processes, address space and data (ulimit -u, ulimit -v, ulimit -d, pids.max)")
        case .addressSpace(let count):
            lacks(count, addressSpace, "MiB of address space", "raise its limit (ulimit -v)")
        case .lockedPages(let count):
            lacks(
                count * Area.pageSize(of: memory).bytes >> 10, lockedMemory, "KiB of memory that may be locked",
                "raise the limit (ulimit -l)")
        case .tmpfsRoom(let count):
            tmpfsRoom.map { lacks(count, $0, "KiB free on a tmpfs", "enlarge it (mount -o remount,size=64m /dev/shm)") }
                ?? "no tmpfs is mounted where this user can write: mount one on /dev/shm"
        default: nil
        }
    }
}

/// The tmpfs that cases put their files on: of those that this user can write to, the one with most room.
struct TmpfsRoom {
    let directory: String
    let kibibytes: Int

    static let best = ["/dev/shm", "/run/user/\(getuid())", "/tmp", "/run"].compactMap(TmpfsRoom.init).max {
        $0.kibibytes < $1.kibibytes
    }

    private init?(directory: String) {
        guard css_is_tmpfs(directory), access(directory, W_OK) == 0 else { return nil }
        var status = css_statfs_answer()
        guard css_statfs(directory, &status) == 0 else { return nil }
        self.directory = directory
        // A tmpfs without a limit says that it has no blocks at all.
        kibibytes = status.blocks == 0 ? .max : Int(clamping: status.free_blocks * status.block_size >> 10)
    }
}
