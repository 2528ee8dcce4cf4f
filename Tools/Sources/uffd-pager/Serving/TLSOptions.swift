import ArgumentParser
import Glibc

#if NBD
import UserfaultNBD
#endif

/// Who the two ends of an encrypted connection to an NBD server are.
struct TLSOptions: ParsableArguments, Sendable {
    @Option(
        help: ArgumentHelp(
            """
            For nbds addresses: a folder with ca-cert.pem, which has signed the server's certificate, and with client-cert.pem \
            and client-key.pem if the server asks for them.
            """, valueName: "folder"), completion: .directory)
    var tlsCertificates: String?

    @Option(
        help: ArgumentHelp(
            "For nbds addresses: a file with pre-shared keys, in place of certificates.", valueName: "file"),
        completion: .file())
    var tlsPskFile: String?

    @Option(
        help: ArgumentHelp(
            "The name under which the key is in that file. (default: that of the user who runs this program)",
            valueName: "name"))
    var tlsUsername: String?

    /// Looks whether an address can be used with these.
    ///
    /// - Parameter memory: A path, or an `nbd` URI.
    /// - Throws: `ValidationError`.
    func check(for memory: String) throws {
        let isEncrypted = memory.hasPrefix("nbds:") || memory.hasPrefix("nbds+unix:")
        let isGiven = tlsCertificates != nil || tlsPskFile != nil || tlsUsername != nil
        guard isEncrypted || !isGiven else {
            throw ValidationError(
                "--tls-certificates, --tls-psk-file and --tls-username are for nbds addresses, not for \(memory)")
        }
        guard tlsCertificates == nil || tlsPskFile == nil else {
            throw ValidationError("--tls-certificates and --tls-psk-file exclude each other: name one of them")
        }
        guard tlsUsername == nil || tlsPskFile != nil else {
            throw ValidationError("--tls-username needs --tls-psk-file, the file that has the key of this name")
        }
    }

    #if NBD
    var configuration: NBDConfiguration.TLS {
        NBDConfiguration.TLS(
            certificates: tlsCertificates, preSharedKeys: tlsPskFile,
            username: tlsUsername ?? (tlsPskFile == nil ? nil : Self.user))
    }

    /// Not who has logged in, which libnbd takes: under systemd nobody has.
    private static var user: String? { getpwuid(geteuid()).map { String(cString: $0.pointee.pw_name) } }
    #endif
}
