#if NBD
internal import SystemPackage

/// Who may be at the other end of an encrypted connection.
///
/// libnbd verifies less than it is asked to, and says nothing: without a file with authorities it takes those that the system
/// trusts, and several versions then take any certificate; so do several where the server has no name. What it would not
/// verify is refused here.
struct Trust {
    /// The address is for an encrypted connection, and the server is to be verified.
    private let isWanted: Bool
    private let hasName: Bool
    private let hasKeys: Bool
    /// The folder with the authority.
    private let folder: String?

    init(_ configuration: NBDConfiguration, _ uri: String) {
        let scheme = uri.prefix { $0 != ":" }.lowercased()
        isWanted = scheme.hasPrefix("nbds") && configuration.tls.verifiesServer
        hasName = scheme == "nbds"
        let query = configuration.allowsLocalFiles ? Self.query(of: uri) : []
        hasKeys = configuration.tls.preSharedKeys != nil || Self.value("tls-psk-file", in: query) != nil
        // As libnbd: what the address says comes last.
        folder = Self.value("tls-certificates", in: query) ?? configuration.tls.certificates
    }

    /// Before each connection: what was there for the last one may be gone.
    func check() throws(NBDError) {
        guard isWanted, !hasKeys else { return }
        guard let folder else {
            throw NBDError(.configuration, message: "nbds: say which authority or which keys to trust")
        }
        guard hasName else {
            throw NBDError(
                .configuration,
                message:
                    "nbds+unix: a server without a name is not verified by its certificate: take pre-shared keys, or "
                    + "do without verification, where the socket's folder says who may be the server")
        }
        let path = folder + "/ca-cert.pem"
        do {
            let file = try FileDescriptor.open(
                FilePath(path), .readOnly, options: [.nonBlocking, .closeOnExec])
            try file.closeAfter {
                var byte: UInt8 = 0
                guard try unsafe withUnsafeMutableBytes(of: &byte, { try unsafe file.read(into: $0) }) > 0 else {
                    throw Errno.noData
                }
            }
        } catch {
            throw NBDError(
                .configuration, errno: error as? Errno, message: "the authority to trust cannot be read from \(path)")
        }
    }

    /// The parameters of an address.
    private static func query(of uri: String) -> [Substring] {
        let withoutFragment = uri.prefix { $0 != "#" }
        guard let mark = withoutFragment.firstIndex(of: "?") else { return [] }
        return withoutFragment[withoutFragment.index(after: mark)...].split { $0 == "&" || $0 == ";" }
    }

    /// - Returns: `nil` for none, and for one without a value.
    private static func value(_ key: String, in query: [Substring]) -> String? {
        for part in query where part.hasPrefix(key + "=") && part.count > key.count + 1 {
            return decoded(part.dropFirst(key.count + 1))
        }
        return nil
    }

    /// What a parameter means, whose bytes may be written as `%` and two digits.
    private static func decoded(_ text: Substring) -> String {
        var bytes: [UInt8] = []
        var rest = text
        while let first = rest.popFirst() {
            if first == "%", let byte = UInt8(rest.prefix(2), radix: 16), rest.count >= 2 {
                bytes.append(byte)
                rest = rest.dropFirst(2)
            } else {
                bytes += Array(String(first).utf8)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
#endif
