internal import CUserfaultFD
package import SystemPackage

/// Stream sockets of the Unix domain, close-on-exec, as owned descriptors.
package enum UnixSocket {
    /// Two sockets that are connected with each other.
    package struct Pair: ~Copyable {
        package let first: OwnedDescriptor
        package let second: OwnedDescriptor

        package init() throws(UserfaultError) {
            var sockets: [Int32] = [-1, -1]
            _ = try answer(to: .socket) { unsafe cuffd_socketpair(&sockets) }
            first = OwnedDescriptor(adopting: sockets[0])
            second = OwnedDescriptor(adopting: sockets[1])
        }
    }

    /// A socket that listens at a path.
    package static func listen(at path: String, backlog: Int32 = 16) throws(UserfaultError) -> OwnedDescriptor {
        OwnedDescriptor(adopting: try answer(to: .socket) { unsafe cuffd_unix_listen(path, backlog) })
    }

    /// A socket that is connected to a path.
    package static func connect(to path: String) throws(UserfaultError) -> OwnedDescriptor {
        OwnedDescriptor(
            adopting: try answer(to: .socket, retryOnInterrupt: true) { unsafe cuffd_unix_connect(path) })
    }

    /// The next connection of a listening socket.
    package static func accept(from listener: borrowing OwnedDescriptor) throws(UserfaultError) -> OwnedDescriptor {
        let number = listener.rawValue
        return OwnedDescriptor(adopting: try answer(to: .socket, retryOnInterrupt: true) { cuffd_accept(number) })
    }

    /// Whether there is a socket at a path at which nobody listens any more.
    package static func isAbandoned(_ path: String) -> Bool {
        do throws(UserfaultError) {
            _ = try connect(to: path)
            return false
        } catch {
            return error.errno == .connectionRefused
        }
    }

    /// Removes a socket from the file system; refuses to remove any other file.
    package static func remove(_ path: String) throws(UserfaultError) {
        _ = try answer(to: .socket) { unsafe cuffd_unix_remove(path) }
    }

    /// Lets every message that arrives bring a handle of the process that sent it.
    package static func passSenders(to socket: FileDescriptor) throws(UserfaultError) {
        _ = try answer(to: .socket) { cuffd_pass_sender(socket.rawValue) }
    }
}
