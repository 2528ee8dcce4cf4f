import Glibc

/// The results of `--quick`: a few for each call and each memory type, none of them slow.
enum QuickSet {
    static let globs = [
        "UFFDIO_API*", "open-flags*", "api-once", "order-before-api", "register-ioctls/[ah]*", "register-refuses/*",
        "read-form", "poll-wakes", "fault-missing/*", "kernel-faults/anon", "minor/*", "fill-range/*",
        "fill-validation/anon", "continue-exists/shmem", "copy-exists/anon", "zeropage/*", "poison/*", "wake-range/*",
        "unregister-wakes-both/*", "close-releases/anon", "sigbus/*", "move/*", "move-holes/*", "wp-fault/*",
        "wp-fork/anon", "wp-async/*", "scan-written/*", "event-*/anon", "rwp-sync/*", "set-mode-wakes/*",
    ]

    static func contains(_ result: SelectedResult) -> Bool {
        !result.isSlow && globs.contains { fnmatch($0, result.identity, 0) == 0 }
    }
}
