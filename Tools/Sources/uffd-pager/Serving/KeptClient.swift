import Glibc
import Logging
import SystemPackage
import UserfaultFD
import UserfaultHandoff
import UserfaultPager

/// A client whose server has died: what was kept of it.
struct KeptClient {
    let id: Int
    /// The process that connected; 0 if it has ended, and the dead server has not written it down.
    let process: Int32
    /// What the dead server has written down, if a successor can serve it.
    private let record: Result<KeptRecord, any Error>
    private let files: Files
    /// Its memory file, if it has one.
    private let file: Files

    /// All clients that this process was handed, in the order in which they came.
    ///
    /// Memory files of no client are let go, here and by the keepers.
    static func takeAll(from keepers: Keepers?) -> [KeptClient] {
        let ids = PassedDescriptors.names.compactMap(KeptName.client(in:))
        let clients = ids.sorted().map { id in
            KeptClient(
                id: id, numbers: PassedDescriptors.take(KeptName.client(id)),
                file: PassedDescriptors.take(KeptName.file(id)))
        }
        // A server may have died before it had their clients kept, or after it had those forgotten.
        for name in PassedDescriptors.names {
            guard let id = KeptName.file(in: name) else { continue }
            for number in PassedDescriptors.take(name) { close(number) }
            keepers?.forgetFile(of: id)
        }
        return clients
    }

    private init(id: Int, numbers: [Int32], file: [Int32]) {
        self.id = id
        files = Files(numbers)
        self.file = Files(file)
        record = Result { [files] in
            guard let number = files[.record] else {
                throw HandoffError.notServed("a successor cannot go on with forks")
            }
            return try KeptRecord(file: Memfd(adopting: OwnedDescriptorNumber.duplicate(number)))
        }
        let written = (try? record.get().process) ?? 0
        process = written > 0 ? written : files[.process].flatMap(OpenNumber.process(ofPidfd:)) ?? 0
    }

    /// What becomes of it if it is to be killed.
    private var fate: Fate { Fate(wasKilled: files[.process].map(MayKill.process) ?? true) }

    /// The machine that it belongs to, if that is known.
    var machine: String? { try? record.get().machine }

    /// The client's process.
    func owner() throws -> Owner {
        guard let number = files[.process] else { throw Errno.noSuchProcess }
        return try Owner.process(pidfd: OwnedDescriptorNumber.duplicate(number))
    }

    /// The client's memory, if a successor can serve it.
    func memory(of owner: Owner) throws -> KeptMemory {
        let content = try record.get()
        guard let state = files[.state], let uffd = files[.userfaultfd] else {
            throw HandoffError.notServed("it was not kept whole")
        }
        return try KeptMemory(
            content, userfaultfd: FileDescriptor(rawValue: uffd), owner: owner,
            state: FileDescriptor(rawValue: state), file: file.only, pages: files[.pages].map(FileDescriptor.init))
    }

    /// Kills peers that were handing their memory over when their server died: they cannot do so again.
    static func endArrivals(_ keepers: Keepers?, _ logger: Logger) {
        for name in PassedDescriptors.names where KeptName.isArrival(name) {
            if let fate = LostProcesses.end(arrival: PassedDescriptors.take(name)) {
                keepers?.noteFailure()
                logger.error(
                    "the memory of a client was just being handed over when its server died: it is lost, \(fate)")
            }
            keepers?.forget(name)
        }
    }

    /// Ends all clients that this process was handed: none can be served any more.
    static func killAll(_ keepers: Keepers?, _ logger: Logger, because error: any Error) {
        endArrivals(keepers, logger)
        let clients = takeAll(from: keepers)
        for client in clients {
            logger.error(
                "a client cannot be served any more, \(client.fate)",
                metadata: [
                    "machine": "\(client.machine ?? "?")", "process": "\(client.process)", "error": "\(error)",
                ])
        }
        LostProcesses.end(clients.compactMap { $0.files[.process] })
        for client in clients { keepers?.forget(KeptName.client(client.id)) }
    }

    /// Descriptors, closed with the last user.
    private final class Files: Sendable {
        private let numbers: [(kind: DescriptorKind, number: Int32)]

        init(_ numbers: [Int32]) { self.numbers = numbers.map { (DescriptorKind(of: $0), $0) } }

        deinit { for entry in numbers { close(entry.number) } }

        subscript(kind: DescriptorKind) -> Int32? { numbers.first { $0.kind == kind }?.number }

        /// `nil` unless there is one, of whatever kind.
        var only: FileDescriptor? { numbers.count == 1 ? FileDescriptor(rawValue: numbers[0].number) : nil }
    }
}
