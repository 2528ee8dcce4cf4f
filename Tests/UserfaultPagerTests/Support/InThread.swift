import Glibc
import SystemPackage
import UserfaultFD

@testable import UserfaultPager

/// Anonymous memory whose faults are served in the threads that have them.
struct InThread<Source: PageSource & ~Copyable>: ~Copyable {
    let mapping: Mapping
    let pager: Pager<Source>
    let region: Region
    var range: AddressRange { mapping.range }

    init(
        _ source: consuming Source, pages: Int = 16, features: UserfaultFD.Features = [],
        options: RegionOptions = RegionOptions(failure: FailurePolicy(retries: 2, backOff: .microseconds(100))),
        configuration: PagerConfiguration = PagerConfiguration()
    ) throws {
        // A fault that is not served must not hold up the test.
        alarm(60)
        let mapping = try Mapping(anonymous: pages * pageBytes)
        let pager = try Pager(
            UserfaultFD(features: features.union(.sigbus)), source: source, configuration: configuration)
        let region = try pager.add(mapping.range, options: options)
        try pager.start()
        self.mapping = mapping
        self.region = region
        self.pager = pager
    }

    /// The pages that do not hold what ``NumberedSource`` says, read by the calling thread.
    var wrongPages: Int {
        stride(from: 0, to: range.count, by: pageBytes).count {
            range.loadWord($0) != NumberedSource.word($0)
        }
    }
}

/// What the last handler of a signal was told.
enum LastSignal {
    nonisolated(unsafe) static var code: CInt = 0
    nonisolated(unsafe) static var address: UInt = 0
    nonisolated(unsafe) static var count = 0

    /// Notes each `SIGBUS` and maps a page of zeros where it happened, so that the thread goes on.
    static func noteFaults() {
        var action = sigaction()
        action.sa_flags = SA_SIGINFO
        action.__sigaction_handler.sa_sigaction = { _, info, _ in
            LastSignal.code = info!.pointee.si_code
            LastSignal.address = UInt(bitPattern: info!.pointee._sifields._sigfault.si_addr)
            LastSignal.count += 1
            let page = LastSignal.address / UInt(pageBytes) * UInt(pageBytes)
            _ = mmap(
                UnsafeMutableRawPointer(bitPattern: page), pageBytes, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)
        }
        sigaction(SIGBUS, &action, nil)
    }
}

extension Memfd {
    /// Has the kernel write memory into the file: the bytes that it took, or -1.
    borrowing func take(_ range: AddressRange) -> Int {
        withUnsafeDescriptor { pwrite($0.rawValue, UnsafeRawPointer(bitPattern: range.start), range.count, 0) }
    }
}

extension Pager where Source: ~Copyable {
    /// Why a range cannot be fetched for the kernel.
    func refusal(toFetch range: AddressRange) -> PagerError? {
        do {
            try withPagesPresent(range) {}
            return nil
        } catch {
            return error as? PagerError
        }
    }
}
