#!/usr/bin/env python3
"""Prints the licences and notices of what a program is linked with: licences.py CHECKOUTS [SYSTEM-PACKAGE...]

CHECKOUTS is where the package manager has the sources of the program's dependencies. SYSTEM-PACKAGE is a Debian package with a
static library that is linked too. A text that several have is printed once.
"""
import pathlib
import re
import shutil
import sys

NAMES = ("LICENSE*", "LICENCE*", "COPYING*", "NOTICE*", "Sources/*/LICENSE*", "Sources/*/COPYING*")
# Files of other projects whose licence is in the file, or in a comment at its head, in the packages that are linked.
FOREIGN = "swift-nio/Sources/CNIO*/**/*.[ch]"
GRANT = re.compile(r"Redistribution and use in source|Permission is hereby granted")
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
COMMON = {"libc": "LGPL-2.1", "libstdc++": "GPL-3", "libgcc": "GPL-3"}


def texts(checkouts, packages):
    """(whose, text) of everything that has to come with the program."""
    yield "swift-userfaultfd", pathlib.Path(__file__).resolve().parents[2] / "LICENSE"
    for checkout in sorted(checkouts.iterdir()):
        found = [file for name in NAMES for file in sorted(checkout.glob(name))]
        if not found:
            sys.exit(f"{checkout} has no licence")
        for file in found:
            yield str(file.relative_to(checkouts)), file
    for file in sorted(checkouts.glob(FOREIGN)):
        comments = [one for one in COMMENT.findall(file.read_text()) if GRANT.search(one)]
        if comments:
            yield str(file.relative_to(checkouts)), "\n".join(comments)
    toolchain = pathlib.Path(shutil.which("swiftc")).resolve().parents[1]
    yield "Swift's standard library and Foundation", toolchain / "share/swift/LICENSE.txt"
    for package in packages:
        yield f"{package} of Debian", pathlib.Path(f"/usr/share/doc/{package}/copyright")
        for prefix, licence in COMMON.items():
            if package.startswith(prefix):
                yield licence, pathlib.Path(f"/usr/share/common-licenses/{licence}")


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    whose = {}
    for name, text in texts(pathlib.Path(sys.argv[1]), sys.argv[2:]):
        text = text if isinstance(text, str) else text.read_text()
        whose.setdefault(text.strip(), []).append(name)
    for text, names in whose.items():
        names = list(dict.fromkeys(names))
        print("=" * 80, *names, "=" * 80, "", text, "", sep="\n")


if __name__ == "__main__":
    main()
