import CTestSupport
import SystemPackage
import Testing

@testable import UserfaultFD

extension Kernel {
    /// No path through an error leaves a descriptor open or memory mapped.
    ///
    /// In processes of their own, where nobody else opens anything.
    @Suite struct Leaks {
        /// How many descriptors and mappings a thing leaves behind each time it is done.
        ///
        /// Of a hundred times, rounded: the test runner's own threads open and map a few things meanwhile.
        static func leaks(_ body: () throws -> Void) rethrows -> (descriptors: Int, mappings: Int) {
            try body()
            let descriptors = Descriptors.open().count, mappings = Descriptors.mappedFiles()
            for _ in 0..<100 { try body() }
            let left = (Descriptors.open().count - descriptors, Descriptors.mappedFiles() - mappings)
            return ((left.0 + 50) / 100, (left.1 + 50) / 100)
        }

        @Test func theCounterSeesLeaks() async {
            await #expect(processExitsWith: .success) {
                let leaked = try Kernel.Leaks.leaks {
                    _ = try UserfaultFD().release()
                    _ = try Mapping(try Memfd(count: page)).release()
                }
                #expect(leaked.descriptors == 1)
                #expect(leaked.mappings == 1)
            }
        }

        @Test func ordinaryUseLeaksNothing() async {
            await #expect(processExitsWith: .success) {
                let leaked = try Kernel.Leaks.leaks {
                    let twice = try Twice(pages: 2)
                    let uffd = try UserfaultFD()
                    try uffd.register(twice.guarded.range, modes: .missing)
                    _ = try uffd.duplicate()
                    _ = try uffd.status()
                    _ = try PagemapScan()
                    _ = KernelSupport.probe()
                }
                #expect(leaked == (0, 0))
            }
        }

        @Test func failuresLeakNothing() async {
            await #expect(processExitsWith: .success) {
                let sockets = SocketPair()
                let leaked = Kernel.Leaks.leaks {
                    _ = try? UserfaultFD(features: .init(rawValue: 1 << 40))
                    _ = try? Memfd(count: -1)
                    _ = try? Memfd(count: page, hugePages: PageSize(bytes: 1 << 20))
                    if let memfd = try? Memfd(count: page) {
                        _ = try? Mapping(memfd, offset: 1)
                        _ = try? Mapping(memfd, count: 0)
                        _ = try? UserfaultFD(adopting: memfd.withUnsafeDescriptor { $0.rawValue })
                    }
                    // No descriptor, a wrong one, and more than were asked for.
                    _ = cts_send(sockets.first.rawValue, "x", 1, sockets.first.rawValue, 0)
                    _ = try? Arrived(over: sockets.second)
                    _ = cts_send(sockets.first.rawValue, "x", 1, sockets.first.rawValue, 1)
                    _ = try? Arrived(over: sockets.second)
                    _ = cts_send(sockets.first.rawValue, "x", 1, sockets.first.rawValue, 9)
                    _ = try? Arrived(over: sockets.second)
                    _ = cts_send(sockets.first.rawValue, "x", 1, sockets.first.rawValue, 9)
                    _ = try? DescriptorPassing.receive(from: sockets.second).takeDescriptors()
                }
                #expect(leaked == (0, 0))
            }
        }

        @Test(.requiresRoot) func refusedOpeningLeaksNothing() async {
            await #expect(processExitsWith: .success) {
                #expect(cts_refuse_userfaultfd(Errno.notPermitted.rawValue) == 0)
                #expect(cts_become_user(65534) == 0)
                let leaked = Kernel.Leaks.leaks { _ = try? UserfaultFD() }
                #expect(leaked == (0, 0))
            }
        }
    }
}
