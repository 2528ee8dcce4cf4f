#!/usr/bin/env python3
"""Takes the Swift code out of the documents, so that it can be compiled.

usage: docs-code.py FOLDER FILE...

FILE is a Markdown page, or a Swift source with code in its documentation comments. A block of code is one of:

* the manifest of a package, if it begins with "// swift-tools-version": goes to FOLDER/manifests/NAME/Package.swift;
* a whole program, if it imports something: goes to FOLDER/programs/NAME.swift. After the comment
  "<!-- snippet: NAME -->" it has to be the same as Snippets/NAME.swift without the marks of its slices;
* a part of a program: goes into a function of FOLDER/parts/NAME.swift, which is compiled together with
  Tests/Documents/Prelude.swift. That declares what the parts use and do not declare themselves.
"""
import pathlib
import re
import sys

IMPORTS = ("CoreMetrics", "Glibc", "Logging", "ServiceLifecycle", "Synchronization", "SystemPackage", "UserfaultFD",
           "UserfaultHandoff", "UserfaultPager", "UserfaultPagerMetrics", "UserfaultPagerService")
MARK = re.compile(r"^ *// snippet\.\w+\n", re.MULTILINE)
MARKER = re.compile(r"<!-- snippet: (\w+) -->")


def lines_of(path):
    """The lines of a page; of a source, those of its documentation comments, and empty ones for the code between."""
    for line in path.read_text().splitlines():
        if path.suffix != ".swift":
            yield line
        else:
            comment = re.match(r"\s*/// ?(.*)", line)
            yield comment.group(1) if comment else ""


def blocks(path):
    """(first line, code, name of its snippet) of each block."""
    code = first = snippet = marker = None
    for number, line in enumerate(lines_of(path), 1):
        if code is None and line.strip() == "```swift":
            code, first, snippet = [], number + 1, marker
        elif code is not None and line.strip() == "```":
            yield first, "\n".join(code) + "\n", snippet
            code = None
        elif code is not None:
            code.append(line)
        if line.strip():
            marker = found.group(1) if (found := MARKER.search(line)) else None


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    failed = False
    for path in map(pathlib.Path, sys.argv[2:]):
        for first, code, snippet in blocks(path):
            name = re.sub(r"\W", "_", f"{path.stem}_{first}")
            place = f'#sourceLocation(file: "{path}", line: {first})\n'
            if snippet and MARK.sub("", pathlib.Path(f"Snippets/{snippet}.swift").read_text()) != code:
                print(f"{path}:{first}: this differs from Snippets/{snippet}.swift", file=sys.stderr)
                failed = True
            if code.startswith("// swift-tools-version"):
                target, text = folder / "manifests" / name / "Package.swift", code
            elif re.search(r"^import ", code, re.MULTILINE):
                target, text = folder / "programs" / f"{name}.swift", place + code
            else:
                imports = "".join(f"import {module}\n" for module in IMPORTS)
                target = folder / "parts" / f"{name}.swift"
                waits = "async " if re.search(r"\bawait\b", code) else ""
                text = f"{imports}func {name}() {waits}throws {{\n{place}{code}#sourceLocation()\n}}\n"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
    return failed


if __name__ == "__main__":
    sys.exit(main())
