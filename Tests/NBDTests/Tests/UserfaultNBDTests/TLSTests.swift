import Foundation
import Testing
import UserfaultNBD
import UserfaultPager

/// Encrypted connections, and servers that are not who they should be.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct TLSTests {
    /// An authority, and a server's certificate of it, in a folder each.
    private struct Certificates {
        let folder: URL
        var server: String { folder.appendingPathComponent("server").path }
        var client: String { folder.appendingPathComponent("client").path }

        init(in parent: URL, _ name: String, serverName: String = "localhost") throws {
            folder = parent.appendingPathComponent(name)
            let files = FileManager.default
            for part in ["server", "client"] {
                try files.createDirectory(at: folder.appendingPathComponent(part), withIntermediateDirectories: true)
            }
            func write(_ lines: String..., to name: String) throws -> String {
                let path = folder.appendingPathComponent(name).path
                try lines.joined(separator: "\n").write(toFile: path, atomically: true, encoding: .utf8)
                return path
            }
            let key = folder.appendingPathComponent("ca-key.pem").path
            let authority = "\(client)/ca-cert.pem"
            try run("certtool", "--generate-privkey", "--ecc", "--outfile", key)
            try run(
                "certtool", "--generate-self-signed", "--load-privkey", key, "--outfile", authority, "--template",
                try write("cn = \(name)", "ca", "cert_signing_key", to: "ca.info"))
            try run("certtool", "--generate-privkey", "--ecc", "--outfile", "\(server)/server-key.pem")
            try run(
                "certtool", "--generate-certificate", "--load-ca-certificate", authority, "--load-ca-privkey", key,
                "--load-privkey", "\(server)/server-key.pem", "--outfile", "\(server)/server-cert.pem", "--template",
                try write("cn = \(serverName)", "dns_name = \(serverName)", "tls_www_server", to: "server.info"))
            try files.copyItem(atPath: authority, toPath: "\(server)/ca-cert.pem")
        }
    }

    /// nbdkit with TLS on a port of its own.
    private func serve(_ certificates: Certificates) throws -> (server: Server, port: Int) {
        try Server.onPort(
            "--tls=require", "--tls-certificates=\(certificates.server)", "pattern", "4M")
    }

    private func configuration(_ folder: String, verifies: Bool = true) -> NBDConfiguration {
        NBDConfiguration(tls: .init(certificates: folder, verifiesServer: verifies))
    }

    @Test func onlyTheRightServerIsBelieved() throws {
        let folder = try Server.makeFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let right = try Certificates(in: folder, "right")
        let other = try Certificates(in: folder, "other")
        let (server, port) = try serve(right)
        let address = "nbds://localhost:\(port)/"

        let source = try NBDSource(address, configuration: configuration(right.client))
        let served = try Served(source, bytes: 4 << 20)
        try served.pager.populate(served.region)
        #expect(Toucher.all((0..<1024).map { $0 * Served.page }) { served.isPattern($0) })
        try served.pager.stop(.poison)

        // Another authority.
        let error = #expect(throws: NBDError.self) {
            try NBDSource(address, configuration: configuration(other.client))
        }
        #expect(error?.operation == .connect)
        // Nobody in particular.
        let nobody = #expect(throws: NBDError.self) { try NBDSource(address) }
        #expect(nobody?.operation == .configuration)
        // Another name.
        #expect(throws: NBDError.self) {
            try NBDSource("nbds://127.0.0.1:\(port)/", configuration: configuration(right.client))
        }
        // In the clear.
        #expect(throws: NBDError.self) { try NBDSource("nbd://localhost:\(port)/") }
        // Whoever wants it so.
        _ = try NBDSource("nbds://127.0.0.1:\(port)/", configuration: configuration(other.client, verifies: false))
        withExtendedLifetime(server) {}
    }

    /// libnbd would take anybody's certificate, and say nothing.
    @Test func whoeverCannotBeVerifiedIsRefused() throws {
        let folder = try Server.makeFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let (server, port) = try serve(try Certificates(in: folder, "right"))
        func refuses(_ address: String, _ configuration: NBDConfiguration = NBDConfiguration()) {
            let error = #expect(throws: NBDError.self) { try NBDSource(address, configuration: configuration) }
            #expect(error?.operation == .configuration)
        }
        let address = "nbds://localhost:\(port)/"
        // Folders without an authority.
        refuses(address, configuration(folder.appendingPathComponent("nothing").path))
        let empty = folder.appendingPathComponent("empty")
        try FileManager.default.createDirectory(at: empty, withIntermediateDirectories: true)
        refuses(address, configuration(empty.path))
        #expect(
            FileManager.default.createFile(atPath: empty.appendingPathComponent("ca-cert.pem").path, contents: Data()))
        refuses(address, configuration(empty.path))
        // What looks like a parameter, and is none.
        refuses(address + "tls-certificates=x")
        refuses(address + "#tls-psk-file=x")
        refuses(address + "?tls-certificates=")
        refuses(address + "?tls-certificates=\(empty.path)")
        // libnbd takes the last one, and reads names as addresses write them.
        let good = folder.appendingPathComponent("right/client").path
        var trusting = configuration(good)
        trusting.allowsLocalFiles = true
        for query in [
            "tls-certificates=\(good)&tls-certificates=\(empty.path)", "tls%2Dcertificates=\(empty.path)",
            "TLS-Certificates=\(empty.path)", "tls-psk-file=x;tls-certificates=\(good);tls-psk-file=",
        ] {
            #expect(throws: NBDError.self, "\(query)") { try NBDSource(address + "?" + query, configuration: trusting) }
        }
        withExtendedLifetime(server) {}
    }

    /// The authority is looked at again for each connection.
    @Test func anAuthorityThatIsGoneMakesNobodyTrusted() throws {
        let folder = try Server.makeFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let right = try Certificates(in: folder, "right")
        let (server, port) = try serve(right)
        let reports = Reports<NBDReport>()
        var configuration = configuration(right.client)
        configuration.connections = 1
        configuration.report = { reports.add($0) }
        let source = try NBDSource("nbds://localhost:\(port)/", configuration: configuration)
        try FileManager.default.removeItem(atPath: right.client)
        server.kill()
        try server.start()
        let isRefused = wait {
            reports.count {
                if case .notConnected(_, let error) = $0 { error.operation == .configuration } else { false }
            } > 0
        }
        #expect(isRefused)
        withExtendedLifetime(source) {}
    }

    /// A server without TLS, for a client that wants it.
    @Test func aServerWithoutTLSIsRefused() throws {
        let folder = try Server.makeFolder()
        let right = try Certificates(in: folder, "right")
        let server = try Server.nbdkit(in: folder, "pattern", "1M")
        let address = "nbds+unix:///?socket=\(server.socket)"
        let error = #expect(throws: NBDError.self) {
            try NBDSource(address, configuration: configuration(right.client, verifies: false))
        }
        #expect(error?.operation == .connect)
        // Nobody's name is in a certificate that a socket could be compared with.
        let unnamed = #expect(throws: NBDError.self) {
            try NBDSource(address, configuration: configuration(right.client))
        }
        #expect(unnamed?.operation == .configuration)
    }
}
