import UserfaultFD
import Glibc
import Testing

/// What the tests must know of a sanitizer that they run under.
enum Sanitizer {
    static let isThread = has("__tsan_init")
    static let isThere = isThread || has("__asan_init")

    private static func has(_ symbol: String) -> Bool { dlsym(UnsafeMutableRawPointer(bitPattern: 0), symbol) != nil }
}

extension Trait where Self == ConditionTrait {
    /// The thread sanitizer holds its own locks over `fork`, and takes them at every access of the thread that is to
    /// read the fork's event: the two wait for each other.
    static var followsForks: Self {
        .enabled("the thread sanitizer cannot follow forks") { !Sanitizer.isThread }
    }

    /// The thread sanitizer ends a child of a fork that starts a thread.
    static var startsThreadsAfterFork: Self {
        .enabled("the thread sanitizer lets no child of a fork start threads") { !Sanitizer.isThread }
    }

    /// The thread sanitizer blocks every signal in every handler, so that a fault there ends the process.
    static var nestsSignals: Self {
        .enabled("the thread sanitizer blocks SIGBUS in handlers of signals") { !Sanitizer.isThread }
    }

    /// The thread sanitizer ends a process one of whose threads is cancelled in a call that it watches.
    static var cancelsThreads: Self {
        .enabled("the thread sanitizer lets no thread be cancelled") { !Sanitizer.isThread }
    }

    /// What a sanitizer notes of each access counts as memory of the program.
    static var measuresMemory: Self {
        .enabled("the notes of a sanitizer are memory of the program") { !Sanitizer.isThere }
    }

    /// What a sanitizer notes of each access is charged to the group as well, and is more than its limit.
    static var fitsMemoryGroup: Self {
        .enabled("a sanitizer does not fit a memory cgroup's limit") { !Sanitizer.isThere }
    }

    /// Nor a limit of address space.
    static var fitsAddressSpaceLimit: Self {
        .enabled("a sanitizer does not fit a limit of address space") { !Sanitizer.isThere }
    }

    /// The address sanitizer has all addresses between 2 GiB and 16 TiB.
    static var hasLowAddresses: Self {
        .enabled("the address sanitizer has these addresses") { !Sanitizer.isThere || Sanitizer.isThread }
    }

    /// A sanitizer takes memory where the program does not, and a fork holds the heap's locks.
    static var takesNoMemoryWhileItForks: Self {
        .enabled("a sanitizer takes memory that a fork holds") { !Sanitizer.isThere }
    }
}
