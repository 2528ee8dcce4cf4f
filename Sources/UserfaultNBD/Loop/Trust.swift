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
    /// A parameter that the address has twice: libnbd and this might take different ones.
    private let ambiguous: String?

    init(_ configuration: NBDConfiguration, _ uri: String) {
        let scheme = uri.prefix { $0 != ":" }.lowercased()
        isWanted = scheme.hasPrefix("nbds") && configuration.tls.verifiesServer
        hasName = scheme == "nbds"
        let query = configuration.allowsLocalFiles ? Self.query(of: uri) : []
        let names = query.map(\.name)
        ambiguous = ["tls-certificates", "tls-psk-file"].first { name in names.count { $0 == name } > 1 }
        func value(_ name: String) -> String? { query.first { $0.name == name }?.value }
        hasKeys = configuration.tls.preSharedKeys != nil || value("tls-psk-file") != nil
        // As libnbd: what the address says comes last.
        folder = value("tls-certificates") ?? configuration.tls.certificates
    }

    /// Before each connection: what was there for the last one may be gone.
    func check() throws(NBDError) {
        if let ambiguous, isWanted {
            throw NBDError(.configuration, message: "the address says \(ambiguous) twice")
        }
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

    /// The parameters of an address that have a value, their names in lower case.
    private static func query(of uri: String) -> [(name: String, value: String)] {
        let withoutFragment = uri.utf8.prefix { $0 != UInt8(ascii: "#") }
        guard let mark = withoutFragment.firstIndex(of: UInt8(ascii: "?")) else { return [] }
        let parameters = withoutFragment[withoutFragment.index(after: mark)...]
        return parameters.split { $0 == UInt8(ascii: "&") || $0 == UInt8(ascii: ";") }.compactMap { part in
            guard let sign = part.firstIndex(of: UInt8(ascii: "=")) else { return nil }
            let value = part[part.index(after: sign)...]
            return value.isEmpty ? nil : (decoded(part[..<sign]).lowercased(), decoded(value))
        }
    }

    /// What a text means, whose bytes may be written as `%` and two digits.
    private static func decoded(_ text: Substring.UTF8View) -> String {
        var bytes: [UInt8] = []
        var rest = text
        while let first = rest.popFirst() {
            if first == UInt8(ascii: "%"), rest.count >= 2, let digits = String(rest.prefix(2)),
                let byte = UInt8(digits, radix: 16)
            {
                bytes.append(byte)
                rest = rest.dropFirst(2)
            } else {
                bytes.append(first)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
#endif
