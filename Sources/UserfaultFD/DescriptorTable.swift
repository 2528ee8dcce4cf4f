/// Places for the userfaultfds of forked children, made beforehand.
///
/// A `fork` waits until its event is read, and holds the allocator's locks meanwhile: the thread that reads must not
/// allocate, so the place for the child's descriptor must be there already. Putting a descriptor in, looking at it and
/// taking it out allocate nothing.
///
/// The kernel does not report that a child has ended. ``insert(_:removingEnded:)`` frees the places of children that have, before it
/// says that there is no room, and ``removeEnded(_:)`` does so when you like.
@safe
public struct DescriptorTable: ~Copyable, @unchecked Sendable {
    // Not of optionals, which the compiler cannot instrument for the thread sanitizer.
    private let places: UnsafeMutablePointer<UserfaultFD>
    private let isTaken: UnsafeMutableBufferPointer<Bool>

    /// How many places are taken.
    public private(set) var count = 0

    /// An empty table.
    ///
    /// - Parameter capacity: How many descriptors it has room for.
    /// - Precondition: `capacity` is at least 1.
    public init(capacity: Int) {
        precondition(capacity > 0, "a table needs room for at least one descriptor")
        unsafe places = .allocate(capacity: capacity)
        unsafe isTaken = .allocate(capacity: capacity)
        unsafe isTaken.initialize(repeating: false)
    }

    /// Closes every descriptor that is left: threads that wait for pages of those children read zeros.
    deinit {
        for index in unsafe isTaken.indices where unsafe isTaken[index] {
            unsafe (places + index).deinitialize(count: 1)
        }
        unsafe places.deallocate()
        unsafe isTaken.deallocate()
    }

    /// How many descriptors there is room for.
    public var capacity: Int { unsafe isTaken.count }

    /// What became of a descriptor that was to be put in.
    public enum Insertion: ~Copyable, Sendable {
        /// It is in the table, at this index.
        case inserted(Int)
        /// Every place is taken by a process that lives; the descriptor is given back.
        case full(UserfaultFD)
    }

    /// Puts a descriptor into a free place.
    ///
    /// - Parameters:
    ///   - descriptor: The descriptor of a child, from ``Event/fork(_:)``.
    ///   - body: Is lent each descriptor of a process that has ended, with its index, before its place is freed: to take it
    ///     out of a ``PollSet``. Only called if there is no free place.
    /// - Returns: The place's index, which stays the same until it is removed; or the descriptor, if there is no room.
    public mutating func insert(
        _ descriptor: consuming UserfaultFD,
        removingEnded body: (_ index: Int, _ descriptor: borrowing UserfaultFD) -> Void = { _, _ in }
    ) -> Insertion {
        if count == capacity { removeEnded(body) }
        for index in unsafe isTaken.indices where unsafe !isTaken[index] {
            unsafe (places + index).initialize(to: descriptor)
            unsafe isTaken[index] = true
            count += 1
            return .inserted(index)
        }
        return .full(descriptor)
    }

    /// Lends the descriptor at an index, or returns `nil` if the place is free.
    ///
    /// - Precondition: `index` is in `0 ..< capacity`.
    public func withDescriptor<Result, Failure: Error>(
        at index: Int, _ body: (borrowing UserfaultFD) throws(Failure) -> Result
    ) throws(Failure) -> Result? {
        precondition((0..<capacity).contains(index), "there is no such place")
        guard unsafe isTaken[index] else { return nil }
        return try unsafe body(places[index])
    }

    /// Takes the descriptor at an index out of the table, or returns `nil` if the place is free.
    ///
    /// - Precondition: `index` is in `0 ..< capacity`.
    public mutating func remove(at index: Int) -> UserfaultFD? {
        precondition((0..<capacity).contains(index), "there is no such place")
        guard unsafe isTaken[index] else { return nil }
        unsafe isTaken[index] = false
        count -= 1
        return unsafe (places + index).move()
    }

    /// Closes the descriptors of processes that have exited or executed another program.
    ///
    /// - Parameter body: Is lent each of them, with its index, before it is closed: to take it out of a ``PollSet``.
    public mutating func removeEnded(_ body: (_ index: Int, _ descriptor: borrowing UserfaultFD) -> Void) {
        for index in unsafe isTaken.indices where unsafe isTaken[index] {
            let hasEnded = withDescriptor(at: index) { descriptor in
                guard descriptor.isProcessGone else { return false }
                body(index, descriptor)
                return true
            }
            guard hasEnded == true else { continue }
            _ = remove(at: index)
        }
    }
}
