// snippet.follower
import Foundation
import Glibc
import SystemPackage
import UserfaultFD

/// Serves a page of this process, and of the children that it forks.
///
/// While a fork waits for its event to be read it holds the allocator's locks. So everything that this thread needs is
/// made before it starts, and nothing in the loop allocates.
final class ForkFollower: Sendable {
    static let stopToken = UInt64.max
    static let parentToken = UInt64.max - 1

    let parent: UserfaultFD
    let stop: EventFD
    let set: PollSet
    let page: AddressRange

    init(serving page: AddressRange) throws {
        self.page = page
        parent = try UserfaultFD(features: .eventFork)
        try parent.register(page, modes: .missing)
        set = try PollSet()
        stop = try EventFD()
        try set.add(stop, token: Self.stopToken)
        try set.add(parent, token: Self.parentToken)
    }
    // snippet.fill

    private func fill(_ fault: PageFault, of uffd: borrowing UserfaultFD) throws(UserfaultError) {
        let page = fault.page(size: .base)
        do throws(UserfaultError) {
            try uffd.zeropage(page)
        } catch {
            switch error.reason {
            case .processGone, .noSuchRange: break  // It has ended, or dropped the memory: nobody waits any more.
            case .alreadyMapped: try uffd.wake(page)
            default: throw error
            }
        }
    }
    // snippet.adopt

    private func adopt(_ child: consuming UserfaultFD, _ children: inout DescriptorTable) throws(UserfaultError) {
        switch children.insert(child, removingEnded: { _, ended in try? set.remove(ended) }) {
        case .inserted(let place):
            _ = try children.withDescriptor(at: place) { (child) throws(UserfaultError) in
                try set.add(child, token: UInt64(place))
            }
        case .full(let child):
            // There is no room: the page that this program serves is poisoned, so that the child never reads zeros.
            _ = try? child.poison(page)
        }
    }
    // snippet.serve

    private func serve(
        _ batch: inout EventBatch, _ uffd: borrowing UserfaultFD, _ children: inout DescriptorTable
    ) throws(UserfaultError) {
        while let event = batch.next() {
            switch consume event {
            case .pagefault(let fault): try fill(fault, of: uffd)
            case .fork(let child): try adopt(child, &children)
            default: break
            }
        }
    }
    // snippet.children

    /// A child forks too: what it says is read first, and then served while nothing of the table is lent.
    private func serve(
        childAt place: Int, _ batch: inout EventBatch, _ children: inout DescriptorTable
    ) throws(UserfaultError) {
        _ = try children.withDescriptor(at: place) { (child) throws(UserfaultError) in try child.read(into: &batch) }
        while let event = batch.next() {
            switch consume event {
            case .pagefault(let fault):
                _ = try children.withDescriptor(at: place) { (child) throws(UserfaultError) in
                    try fill(fault, of: child)
                }
            case .fork(let grandchild): try adopt(grandchild, &children)
            default: break
            }
        }
    }
    // snippet.loop

    /// - Parameters:
    ///   - places: Room for the children that live at the same time.
    ///   - started: Signalled once everything is made: nobody may fork before.
    func run(places: Int, started: DispatchSemaphore) throws {
        var children = DescriptorTable(capacity: places)
        var ready = ReadyBatch()
        var batch = EventBatch()
        started.signal()
        while true {
            try set.wait(into: &ready)
            while let next = ready.next() {
                switch next.token {
                case Self.stopToken:
                    return
                case Self.parentToken:
                    try parent.read(into: &batch)
                    try serve(&batch, parent, &children)
                case let place:
                    // A child may have ended since, and another have its place: then there is nothing to read.
                    try serve(childAt: Int(place), &batch, &children)
                }
            }
            // The kernel does not report the end of a child.
            children.removeEnded { _, child in try? set.remove(child) }
        }
    }
}
// snippet.start

guard KernelSupport.probe().has(.forkEvents) else {
    print("skipped: fork events need CAP_SYS_PTRACE")
    exit(0)
}
let memory = try Mapping(anonymous: PageSize.base.bytes)
let follower = try ForkFollower(serving: memory.range)
let started = DispatchSemaphore(value: 0)
let done = DispatchSemaphore(value: 0)
Thread.detachNewThread {
    do { try follower.run(places: 4, started: started) } catch { print(error) }
    done.signal()
}
started.wait()
// snippet.fork

var right = 0
for _ in 0..<3 {
    let child = fork()
    if child == 0 {
        // The grandchild reads the page first, then its parent.
        let grandchild = fork()
        let byte = memory.withBytes { $0.unsafeLoad(as: UInt8.self) }
        var status: CInt = 0
        if grandchild > 0 { waitpid(grandchild, &status, 0) }
        _exit(CInt(byte) + status)
    }
    var status: CInt = -1
    waitpid(child, &status, 0)
    if status == 0 { right += 1 }
}
// snippet.end

follower.stop.signal()
done.wait()
print("\(right) children and their children read their own page")
