"""The C functions are for the typed layer, and for tests of the kernel's raw interface. Everything else is Swift.

Reads which files import CUserfaultFD, and which of its functions and constants nobody uses.
"""

import pathlib
import re
import subprocess
import sys

REPO = pathlib.Path(__file__).resolve().parents[2]
# The typed layer; cases and fixtures of the selftest whose subject is the raw answer; what compares constants and bytes.
RAW = {
    "Sources/UserfaultFD/": "the typed layer",
    "Sources/UserfaultSelftest/Fixtures/Raw": "raw calls",
    "Sources/UserfaultSelftest/Fixtures/Protection.swift": "raw arguments of the protecting calls",
    "Sources/UserfaultSelftest/Fixtures/ProcessMemory.swift": "raw process_vm_readv and its twin",
    "Sources/UserfaultSelftest/Fixtures/Remapping.swift": "raw mremap",
    "Sources/UserfaultSelftest/Cases/": "cases with raw arguments",
    "Tests/UserfaultFDTests/ConstantsTests.swift": "constants",
    "Tests/UserfaultFDTests/EventBatchTests.swift": "messages as the kernel writes them",
    "Tests/UserfaultFDTests/Support/GuestMemory.swift": "a file of KVM's",
    "Tests/UserfaultPagerTests/Support/LoopDevice.swift": "ioctls of loop devices",
    "Tests/UserfaultPagerTests/Support/Client.swift": "a forked child, which must not allocate",
    "Tests/UserfaultPagerTests/Kernel/ClientEndTests.swift": "a forked child, which must not allocate",
    "Tests/Fuzz/KernelBytes.swift": "bytes as the kernel writes them",
}
# A case may only use what a raw argument needs: requests, structures and flags.
CASE_WORDS = re.compile(
    r"\bcuffd_(?!api\b|ioctl|msg|range|move|copy|writeprotect|set_mode|pm_scan_arg|page_region|pagemap_scan|device_|"
    r"userfaultfd|epoll_|read_messages|poll|mmap|status_flags)\w+"
)


def files(*patterns):
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=REPO, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.splitlines() if (REPO / name).exists()]


def main():
    failures = 0
    texts = {name: (REPO / name).read_text() for name in files("*.swift")}
    for name, text in texts.items():
        if not re.search(r"^\S*\s*import CUserfaultFD\b", text, re.M):
            continue
        if not any(name.startswith(start) for start in RAW):
            print(f"{name} imports CUserfaultFD: use Sources/UserfaultFD/System")
            failures += 1
        elif not re.search(r"\b(cuffd_|CUFFD_)", text):
            print(f"{name} imports CUserfaultFD and uses nothing of it")
            failures += 1
        elif "/Cases/" in name and (words := set(CASE_WORDS.findall(text))):
            print(f"{name} calls {', '.join(sorted(words))}: use a fixture")
            failures += 1
    header = (REPO / "Sources/CUserfaultFD/include/cuffd_calls.h").read_text()
    header = re.sub(r"//.*", "", header)
    names = set(re.findall(r"\b(cuffd_\w+)\(", header)) | set(re.findall(r"extern const \w+(?: \w+)? (CUFFD_\w+);", header))
    swift = "\n".join(texts.values())
    for name in sorted(names):
        if not re.search(rf"\b{name}\b", swift):
            print(f"{name} is used by nobody")
            failures += 1
    return 1 if failures else 0


sys.exit(main())
