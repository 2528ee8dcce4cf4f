internal import Synchronization
internal import UserfaultFD

// Asked by every thread that gets SIGBUS, in its signal handler; changed by threads that make and stop pagers.

/// Serves the faults of one pager in the threads that have them.
class FaultServer: @unchecked Sendable {
    /// What a server looks for at the address of a fault.
    enum Search {
        /// Memory of its regions, which it knows.
        case regions
        /// Also memory of its descriptor outside of them, for which it asks the kernel.
        case strays
    }

    /// Serves a fault.
    ///
    /// In a signal handler: it takes no memory, counts no references, and holds no lock that it can interrupt.
    ///
    /// - Parameter seat: The calling thread's, below ``Seats/count``.
    func serve(_ address: UInt, at seat: Int, _ search: Search) -> FaultSignal.Answer { .unclaimed }

    /// Whether it is to be asked for a fault: nobody waits for a seat at the place of another.
    func mayServe(_ address: UInt, _ search: Search) -> Bool { false }

    /// Says what becomes of a fault of a thread that serves another one already.
    ///
    /// - Parameter seat: The calling thread's.
    func answerNested(_ address: UInt, at seat: Int, _ search: Search) -> FaultSignal.Answer { .unclaimed }

    /// Forgets what it knows of a range, which is another descriptor's.
    ///
    /// Also in a signal handler, as ``serve(_:at:_:)`` is.
    func forget(_ range: AddressRange) {}

    /// Has threads that wait to ask their source again find out that it has given memory up, or has ended.
    func noteRemoval() {}

    /// Lets go of what it serves with: nobody is with it any more.
    func depart() {}
}

/// The servers of a process, in places that are never freed.
///
/// A handler takes a seat at a place before it looks who is there, so that nobody whom it finds is let go meanwhile.
@safe
enum FaultServers {
    private struct Place: ~Copyable {
        /// The address of the server; 0 for none.
        let server = Atomic<UInt>(0)
        /// Of handlers that look or serve.
        let seats = Seats()
        /// How many threads ask the server without a seat, such as handlers that look whether to wait for one.
        let visitors = Atomic<Int>(0)

        /// Whether no server is there, and nobody is with one that was.
        var isFree: Bool {
            server.load(ordering: .sequentiallyConsistent) == 0 && seats.areFree
                && visitors.load(ordering: .sequentiallyConsistent) == 0
        }

        /// Asks for a fault; on a thread that has no seat here.
        @inline(__always)
        func serve(_ address: UInt, _ search: FaultServer.Search) -> FaultSignal.Answer {
            seats.withSeat(waitingIf: { mayServe(address, search) }) { seat in
                withServer { $0.serve(address, at: seat, search) }
            } ?? .unclaimed
        }

        private func mayServe(_ address: UInt, _ search: FaultServer.Search) -> Bool {
            visit { $0.mayServe(address, search) ? .served : .unclaimed } == .served
        }

        /// Asks the server that is there, which stays meanwhile; on a thread that has no seat, and takes none.
        func visit(_ ask: (FaultServer) -> FaultSignal.Answer) -> FaultSignal.Answer {
            visitors.add(1, ordering: .sequentiallyConsistent)
            defer { visitors.subtract(1, ordering: .sequentiallyConsistent) }
            return withServer(ask)
        }

        /// Asks the server that is there; on a thread that has a seat, or is a visitor.
        @inline(__always)
        func withServer(_ ask: (FaultServer) -> FaultSignal.Answer) -> FaultSignal.Answer {
            let address = unsafe UnsafeRawPointer(bitPattern: server.load(ordering: .sequentiallyConsistent))
            guard let address = unsafe address else { return .unclaimed }
            return unsafe Unmanaged<FaultServer>.fromOpaque(address)._withUnsafeGuaranteedRef(ask)
        }
    }

    private static let capacity = 256
    nonisolated(unsafe) private static let places = UnsafeMutablePointer<Place>.allocate(capacity: capacity)
    /// Servers by their places, those included that were removed while a handler was with them.
    private final class Kept: Sendable {
        let servers = Mutex<[Int: FaultServer]>([:])
    }

    /// The address of the servers that this process keeps; 0 until it has some.
    private static let keptAddress = Atomic<UInt>(0)
    /// The places from here on were never used, and are not initialized.
    private static let end = Atomic<Int>(0)

    private static var kept: Kept {
        while true {
            if let found = unsafe UnsafeRawPointer(bitPattern: keptAddress.load(ordering: .acquiring)) {
                return unsafe Unmanaged<Kept>.fromOpaque(found).takeUnretainedValue()
            }
            let made = unsafe Unmanaged.passRetained(Kept())
            let isFirst = keptAddress.compareExchange(
                expected: 0, desired: unsafe UInt(bitPattern: made.toOpaque()), ordering: .acquiringAndReleasing
            ).exchanged
            if !isFirst { unsafe made.release() }
        }
    }

    /// Has a server asked from now on.
    static func add(_ server: FaultServer) throws(PagerError) {
        dismissIdle()
        _ = unsafe places
        try asPagerError { () throws(UserfaultError) in
            try FaultSignal.install(
                serve: { address in FaultServers.serve(UInt(address)).rawValue },
                forget: { FaultServers.forgetAll() })
        }
        let isThere = kept.servers.withLock { kept -> Bool in
            // Not one with somebody who is with the server that was there, nor one whose server is about to be dismissed.
            let end = end.load(ordering: .relaxed)
            let index = (0..<end).first { unsafe places[$0].isFree && kept[$0] == nil } ?? end
            guard index < capacity else { return false }
            if index == end {
                unsafe (places + index).initialize(to: Place())
                self.end.store(index + 1, ordering: .releasing)
            }
            kept[index] = server
            let address = unsafe UInt(bitPattern: Unmanaged.passUnretained(server).toOpaque())
            unsafe places[index].server.store(address, ordering: .sequentiallyConsistent)
            return true
        }
        guard isThere else {
            throw .configuration("a process has at most \(capacity) pagers that serve in its threads")
        }
    }

    /// Has a server not asked any more, and dismisses it once nobody asks it, see ``FaultServer/depart()``.
    ///
    /// One whose source hangs is kept past the deadline, until another server comes or goes.
    static func remove(_ server: FaultServer, until deadline: Deadline) {
        if let index = withdraw(server) {
            while isKept(server, at: index), !deadline.hasPassed { pauseThread(for: .microseconds(50)) }
        }
        dismissIdle()
    }

    /// Has a server not asked any more.
    ///
    /// - Returns: Its place, or `nil` if it has none.
    static func withdraw(_ server: FaultServer) -> Int? {
        guard let index = kept.servers.withLock({ kept in kept.first { $0.value === server }?.key }) else { return nil }
        unsafe places[index].server.store(0, ordering: .sequentiallyConsistent)
        unsafe places[index].seats.askAgain()
        server.noteRemoval()
        return index
    }

    /// Whether a handler may be with a server that was withdrawn.
    ///
    /// Once nobody is, another thread may dismiss it and give its place to another server.
    static func isKept(_ server: FaultServer, at index: Int) -> Bool {
        guard kept.servers.withLock({ $0[index] === server }) else { return false }
        return unsafe !places[index].isFree
    }

    /// Dismisses servers that were removed and that nobody is with any more.
    private static func dismissIdle() {
        let idle = kept.servers.withLock { kept in
            let indices = kept.keys.filter { unsafe places[$0].isFree }
            return indices.compactMap { kept.removeValue(forKey: $0) }
        }
        for server in idle { server.depart() }
    }

    /// Has one server serve a page, on a thread that did not fault there.
    ///
    /// - Returns: ``FaultSignal/Answer/unclaimed`` if it was removed.
    static func ask(_ server: FaultServer, for address: UInt) -> FaultSignal.Answer {
        FaultSignal.serving {
            serve(address, by: unsafe UInt(bitPattern: Unmanaged.passUnretained(server).toOpaque()))
        }
    }

    /// Serves a fault, in a signal handler.
    ///
    /// A server that does not know an address has to ask the kernel whether it is its descriptor's, which takes as long as
    /// filling a page. So all are asked first for what they know.
    ///
    /// - Parameter wanted: The address of the only server that is asked; 0 for all.
    private static func serve(_ address: UInt, by wanted: UInt = 0) -> FaultSignal.Answer {
        switch serve(address, by: wanted, .regions) {
        case .unclaimed: serve(address, by: wanted, .strays)
        case .served: .served
        case .refused: .refused
        }
    }

    @inline(__always)
    private static func serve(
        _ address: UInt, by wanted: UInt, _ search: FaultServer.Search
    ) -> FaultSignal.Answer {
        for index in 0..<end.load(ordering: .acquiring) {
            let place = unsafe places + index
            let candidate = unsafe place.pointee.server.load(ordering: .relaxed)
            guard candidate != 0, wanted == 0 || candidate == wanted else { continue }
            let answer: FaultSignal.Answer
            if let seat = unsafe place.pointee.seats.mine {
                answer = unsafe place.pointee.withServer { $0.answerNested(address, at: seat, search) }
            } else {
                answer = unsafe place.pointee.serve(address, search)
            }
            switch answer {
            case .unclaimed: continue
            case .served, .refused: return answer
            }
        }
        return .unclaimed
    }

    /// Has all other servers forget a range that the kernel has registered with the descriptor of one.
    ///
    /// Nothing has told them that their memory there was unmapped, and the first server that knows an address is the one
    /// that serves it. Also in a signal handler.
    static func forget(_ range: AddressRange, butFor owner: FaultServer) {
        let owner = unsafe UInt(bitPattern: Unmanaged.passUnretained(owner).toOpaque())
        for index in 0..<end.load(ordering: .acquiring) {
            let place = unsafe places + index
            let candidate = unsafe place.pointee.server.load(ordering: .relaxed)
            // A thread that has a seat there may be inside what it would wait for.
            guard candidate != 0, candidate != owner, unsafe place.pointee.seats.mine == nil else { continue }
            _ = unsafe place.pointee.visit { server in
                server.forget(range)
                return .served
            }
            unsafe place.pointee.seats.askAgain()
        }
    }

    /// Has threads that wait for a seat at a server, or to ask its source again, find out that it has given memory up.
    static func noteRemoval(by server: FaultServer) {
        server.noteRemoval()
        let address = unsafe UInt(bitPattern: Unmanaged.passUnretained(server).toOpaque())
        for index in 0..<end.load(ordering: .acquiring)
        where unsafe places[index].server.load(ordering: .relaxed) == address {
            unsafe places[index].seats.askAgain()
        }
    }

    /// In the child of a fork: it has none of the memory, and none of the threads that were with a server.
    ///
    /// Its parent's servers and their lock, which another thread may have had at the fork, stay as they are: they are not
    /// the child's to let go of, and the numbers of their descriptors may be other files' by now.
    private static func forgetAll() {
        keptAddress.store(0, ordering: .relaxed)
        for index in 0..<end.load(ordering: .relaxed) {
            unsafe places[index].server.store(0, ordering: .relaxed)
            unsafe places[index].seats.clear()
            unsafe places[index].visitors.store(0, ordering: .relaxed)
        }
    }
}
