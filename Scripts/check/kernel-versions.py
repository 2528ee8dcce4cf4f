"""Compare what doc comments say of kernel versions with docs/kernel-behaviour.md, which was measured.

A comment may say that an answer changed "since Linux 7.1" or was another "up to Linux 7.0". For each there must be a
row of the tables that names one of the comment's calls, and that version.
"""

import pathlib
import re
import sys

REPO = pathlib.Path(__file__).resolve().parents[2]
CALL = re.compile(r"UFFDIO_([A-Z]+)\b|\b(PAGEMAP_SCAN|PAGE_IS_[A-Z]+)\b")
CLAIM = re.compile(r"(?<!vailable )\b([Ss]ince|[Uu]p to) Linux (\d+\.\d+)")


def rows():
    for line in (REPO / "docs/kernel-behaviour.md").read_text().splitlines():
        if line.startswith("|"):
            yield line.replace("`", "")


def blocks():
    """Each doc comment, as its file, its first line's number and its text on one line."""
    for path in sorted((REPO / "Sources/UserfaultFD").rglob("*.swift")):
        start, text = 0, []
        for number, line in enumerate(path.read_text().splitlines() + [""], 1):
            comment = line.strip()
            if comment.startswith("///"):
                start = start or number
                text.append(comment[3:].strip())
            elif text:
                yield path.relative_to(REPO), start, " ".join(text)
                start, text = 0, []


def is_measured(calls, kind, version):
    words = [f"from {version} on"] if kind.lower() == "since" else [f"up to {version}", f"and {version}"]
    return any(
        any(re.search(rf"\b{call}\b", row) for call in calls) and any(word in row for word in words) for row in rows()
    )


def main():
    failures, claims = 0, 0
    for path, line, text in blocks():
        calls = {first or second for first, second in CALL.findall(text)}
        for kind, version in CLAIM.findall(text):
            claims += 1
            if not is_measured(calls, kind, version):
                names = ", ".join(sorted(calls)) or "no call"
                print(f"{path}:{line}: '{kind} Linux {version}' of {names} is not in docs/kernel-behaviour.md")
                failures += 1
    print(f"{claims} statements about versions, {failures} of them not measured")
    # A pattern that matches nothing would pass for ever.
    return 1 if failures or claims < 8 else 0


sys.exit(main())
