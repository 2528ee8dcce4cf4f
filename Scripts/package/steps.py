#!/usr/bin/env python3
"""Writes the code of the tutorials' steps into a copy of their catalogue.

usage: steps.py [--whole] CATALOGUE

The program PROGRAM is Snippets/PROGRAM.swift or Examples/Sources/PROGRAM/main.swift, which checks run. A line
"// snippet.SLICE" begins each of its slices. A step's code "PROGRAM-SLICE.swift" is the program up to the end of this slice, and
"PROGRAM-FIRST-LAST.swift" begins with the slice FIRST, so that it is short; with --whole it is written from the program's start,
so that it can be compiled. What is still open at the end, like a function, is closed.
"""
import pathlib
import re
import sys

CODE = re.compile(r'file: "([\w-]+)\.swift"')
MARKER = re.compile(r"^ *// snippet\.(\w+)\n", re.MULTILINE)


def slices(program):
    """The names and texts of a program's slices, in order."""
    places = [pathlib.Path(f"Snippets/{program}.swift"), pathlib.Path(f"Examples/Sources/{program}/main.swift")]
    path = next((place for place in places if place.exists()), None)
    if path is None:
        return {}
    _, *parts = MARKER.split(path.read_text())
    return dict(zip(parts[::2], parts[1::2]))


def code(step, whole):
    """The code of a step, or None if there is no such program or slice."""
    parts = step.split("-")
    for count in (1, 2):
        texts, names = slices("-".join(parts[:-count])), parts[-count:]
        known = list(texts)
        if not texts or not set(names) <= set(known):
            continue
        first = known.index(names[0]) if count == 2 and not whole else 0
        text = "".join(texts[name] for name in known[first:known.index(names[-1]) + 1])
        for depth in range(text.count("{") - text.count("}") - 1, -1, -1):
            text += "    " * depth + "}\n"
        return text.lstrip("\n")
    return None


def main():
    arguments = [argument for argument in sys.argv[1:] if argument != "--whole"]
    if len(arguments) != 1:
        sys.exit(__doc__)
    catalogue = pathlib.Path(arguments[0])
    failed = False
    for page in sorted(catalogue.glob("*.tutorial")):
        for step in CODE.findall(page.read_text()):
            text = code(step, "--whole" in sys.argv)
            if text is None:
                print(f"{page.name}: there is no program, or no slice of it, for {step}", file=sys.stderr)
                failed = True
            else:
                (catalogue / "Resources" / f"{step}.swift").write_text(text)
    return failed


if __name__ == "__main__":
    sys.exit(main())
