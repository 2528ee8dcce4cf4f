import CTestSupport
import Glibc
import SystemPackage
import Testing

@testable import UserfaultFD

extension Kernel {
    /// What the probe says to whom, each in a process of its own, which changes who it is.
    @Suite struct Probe {
        /// The permissions of the device let root alone in, as they are when the kernel boots.
        static var deviceIsRoots: Bool {
            var status = stat()
            return stat("/dev/userfaultfd", &status) == 0 && status.st_mode & 0o077 == 0 && status.st_uid == 0
        }

        static var kernelFaultsNeedPrivilege: Bool {
            ProcFile.text("/proc/sys/vm/unprivileged_userfaultfd")?.hasPrefix("0") ?? false
        }

        @Test(.requiresRoot, .requiresDevice) func rootMayDoEverything() {
            let support = KernelSupport.probe()
            #expect(support.isUsable)
            let names: [KernelSupport.Name] = [.userModeFaults, .kernelModeFaults, .systemCall, .device, .forkEvents]
            for name in names {
                #expect(support[name]?.isAvailable == true, "\(support[name]?.description ?? name.rawValue)")
            }
            #expect(support.features.contains(.missingShmem))
            #expect(support.ioctls.contains([.api, .register, .unregister]))
            #expect(!support.kernelRelease.isEmpty && !support.machine.isEmpty)
        }

        @Test func everyNoHasAReason() {
            let support = KernelSupport.probe()
            #expect(Set(support.checks.map(\.name)).count == support.checks.count)
            for check in support.checks {
                #expect(check.isAvailable == (check.reason == nil))
                #expect(!check.meaning.isEmpty)
                if !check.isAvailable { #expect(check.description.contains("no, \(check.reason ?? "?")")) }
            }
            for feature in UserfaultFD.Features.names {
                let name = "feature-" + feature.name.lowercased().replacing("_", with: "-")
                #expect(KernelSupport.Name.feature(feature.feature).rawValue == name)
                #expect(support[.feature(feature.feature)]?.isAvailable == support.features.contains(feature.feature))
            }
        }

        @Test(.requiresRoot, .enabled(if: deviceIsRoots && kernelFaultsNeedPrivilege, "the kernel lacks its defaults"))
        func anOrdinaryUserIsToldWhatToDo() async {
            await #expect(processExitsWith: .success) {
                #expect(cts_become_user(65534) == 0)
                let support = KernelSupport.probe()
                #expect(support.isUsable)
                #expect(support[.forkEvents]?.isAvailable == false)
                let faults = support[.kernelModeFaults]
                #expect(faults?.isAvailable == false)
                #expect(faults?.reason == "userfaultfd(2) answered EPERM; /dev/userfaultfd answered EACCES")
                #expect(faults?.remedy?.contains("vm.unprivileged_userfaultfd=1") == true)
                #expect(faults?.remedy?.contains("access to /dev/userfaultfd") == true)
                do throws(UserfaultError) {
                    _ = try UserfaultFD(options: .init(faults: .userAndKernelMode))
                    Issue.record("not permitted")
                } catch {
                    #expect(error.reason == .notPermitted)
                    #expect(error.systemCallAnswer == .notPermitted && error.deviceAnswer == .permissionDenied)
                }
            }
        }

        /// A container's profile that refuses the call: the device is the other way.
        @Test(.requiresRoot, .requiresDevice, arguments: [Errno.notPermitted, .noFunction])
        func theDeviceStandsInForAForbiddenCall(errno: Errno) async {
            await #expect(processExitsWith: .success) { [number = errno.rawValue as CInt] in
                #expect(cts_refuse_userfaultfd(number) == 0)
                let support = KernelSupport.probe()
                #expect(support.isUsable)
                #expect(support[.systemCall]?.isAvailable == false)
                #expect(support[.systemCall]?.remedy?.contains("seccomp") == true)
                #expect(support[.device]?.isAvailable == true)
                _ = try UserfaultFD(options: .init(faults: .userAndKernelMode))
                expectFailure(
                    .open, Errno(rawValue: number),
                    Errno(rawValue: number) == .noFunction ? .unsupported : .notPermitted
                ) { () throws(UserfaultError) in try UserfaultFD(options: .init(way: .systemCall)) }
            }
        }

        @Test(.requiresRoot, .enabled(if: deviceIsRoots, "the kernel lacks its defaults"))
        func nothingIsLeftToAForbiddenUser() async {
            await #expect(processExitsWith: .success) {
                #expect(cts_refuse_userfaultfd(Errno.notPermitted.rawValue) == 0)
                #expect(cts_become_user(65534) == 0)
                let support = KernelSupport.probe()
                #expect(!support.isUsable && support.features.isEmpty)
                #expect(support[.userModeFaults]?.remedy?.contains("seccomp") == true)
                #expect(support[.feature(.move)]?.isAvailable == false)
                expectFailure(.open, .notPermitted, .notPermitted) { () throws(UserfaultError) in try UserfaultFD() }
            }
        }

        /// The sysctl lets everybody handle kernel-mode faults; the host is changed, and changed back.
        @Test(.requiresRoot) func theSysctlOpensTheCallToEverybody() async {
            await #expect(processExitsWith: .success) {
                let path = "/proc/sys/vm/unprivileged_userfaultfd"
                let before = ProcFile.text(path) ?? "0\n"
                let file = try FileDescriptor.open(path, .writeOnly)
                _ = try file.writeAll("1\n".utf8)
                defer { _ = try? file.writeAll(toAbsoluteOffset: 0, before.utf8) }
                #expect(seteuid(65534) == 0)
                let allowed = try UserfaultFD(options: .init(faults: .userAndKernelMode, way: .systemCall))
                #expect(allowed.handlesKernelFaults == true)
                #expect(seteuid(0) == 0)
            }
        }
    }
}
