/// How many clients are served at the same time.
struct SessionLimits {
    /// So many in all.
    let all: Int
    /// So many memories of one process: a client that has gone mad, or was taken over, leaves room for others.
    let ofProcess: Int

    static let ofProcess = 64
    static let range = 1...100_000

    /// Why a process gets no further session, or `nil`.
    ///
    /// - Parameters:
    ///   - process: 0 if it is in a namespace that is not seen from here: who that is, is not known.
    ///   - present: The processes of all sessions.
    func complaint(about process: Int32, beside present: some Collection<Int32>) -> String? {
        guard present.count < all else { return "\(all) clients are served already" }
        guard process == 0 || present.count(where: { $0 == process }) < ofProcess else {
            return "\(ofProcess) memories of this process are served already"
        }
        return nil
    }
}
