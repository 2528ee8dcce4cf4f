import CSelftestSupport
import Glibc
import SystemPackage

extension HostChanges {
    enum Undoing: Codable, Equatable, CustomStringConvertible {
        case write(String, to: String)
        case removeZram(String)
        case swapOff(String)
        case swapOn(String)
        case unlink(String)
        case removeGroup(String)
        case heal(String)

        var description: String {
            switch self {
            case .write(let value, let path): "\(path) is \(value)"
            case .removeZram(let number): "/dev/zram\(number) is removed"
            case .swapOff(let path): "\(path) is no swap space"
            case .swapOn(let path): "\(path) is swap space"
            case .unlink(let path): "\(path) is removed"
            case .removeGroup(let path): "the memory control group \(path) is removed"
            case .heal(let list): "the pages in \(list) are in use"
            }
        }

        /// What a person can do if it cannot be undone.
        var remedy: String {
            switch self {
            case .write(let value, let path): "echo \(value) >\(path)"
            case .removeZram(let number): "echo \(number) >/sys/class/zram-control/hot_remove"
            case .swapOff(let path): "swapoff \(path)"
            case .swapOn(let path): "swapon \(path)"
            case .unlink(let path): "rm \(path)"
            case .removeGroup(let path): "rmdir \(path)"
            case .heal: "restart the machine"
            }
        }
    }

    /// What there is to undo, the latest last.
    struct Journal: Codable, Equatable {
        /// Which start of the machine it is of: another one has put back the settings, and its devices are others.
        var boot = ProcFile.line("/proc/sys/kernel/random/boot_id")
        var undoings: [Undoing] = []
        /// The settings that were changed, with the values that they have got.
        var values: [String: String] = [:]
    }

    /// Whether a device has come in the place of one that this program has made and somebody has removed.
    private static func isAnothersZram(_ path: String) -> Bool {
        guard path.hasPrefix("/dev/zram"), let size = ProcFile.line("/sys/block/\(path.dropFirst(5))/disksize") else {
            return false
        }
        return size != "0" && size != "\(zramSize)"
    }

    /// Undoes a change, unless it is undone already; returns why it cannot be.
    static func undo(_ undoing: Undoing) -> String? {
        switch undoing {
        case .write(let value, let path):
            guard let error = ProcFile.write(value, to: path), SystemSetting(path: path).current != value else {
                return nil
            }
            return "\(path) should be \(value) again: \(error)"
        case .swapOff(let path):
            guard SwapSpace.paths.contains(path[...]), !isAnothersZram(path) else { return nil }
            let answer = css_swapoff(path)
            return answer == 0 ? nil : "\(path) is still used as swap space: \(Errno(rawValue: -answer))"
        case .swapOn(let path):
            guard !SwapSpace.paths.contains(path[...]) else { return nil }
            let answer = css_swapon(path)
            return answer == 0 ? nil : "\(path) is not used as swap space again: \(Errno(rawValue: -answer))"
        case .unlink(let path):
            guard Glibc.unlink(path) != 0, errno != ENOENT else { return nil }
            return "\(path) is still there: \(Errno(rawValue: errno))"
        case .removeGroup(let path):
            MemoryGroups.remove(path)
            return access(path, F_OK) == 0 ? "the memory control group \(path) is still there" : nil
        case .heal(let path):
            return BrokenPages.heal(path)
        case .removeZram(let number):
            guard access("/sys/block/zram\(number)", F_OK) == 0, !isAnothersZram("/dev/zram\(number)") else {
                return nil
            }
            _ = ProcFile.write("1", to: "/sys/block/zram\(number)/reset")
            return ProcFile.write(number, to: "/sys/class/zram-control/hot_remove")
                .map { "/dev/zram\(number) is still there: \($0)" }
        }
    }
}
