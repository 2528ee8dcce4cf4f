#!/usr/bin/env python3
"""Writes a program's manual pages from what it says of its options:

    PROGRAM --experimental-dump-help | manual.py FOLDER [FILE...]

A page for the program, which lists these installed files, and one for each subcommand. swift-argument-parser has a plugin for this,
which compiles the program and all packages that it needs a second time.
"""
import json
import pathlib
import sys


# How a paragraph of a discussion begins that has these, as "NUMBER TEXT; NUMBER TEXT".
CODES = "Exit codes: "


def escape(text):
    """Text that troff takes for text."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join("\\&" + line if line[:1] in (".", "'") else line for line in text.splitlines())


def name_of(option):
    dashes = "-" if option["kind"] == "short" else "--"
    return f"\\fB{escape(dashes + option['name'])}\\fR"


def value_of(argument):
    return f"\\fI{escape(argument.get('valueName', ''))}\\fR"


def head_of(argument):
    if argument["kind"] == "positional":
        return value_of(argument)
    names = ", ".join(map(name_of, argument["names"]))
    return names if argument["kind"] == "flag" else f"{names} {value_of(argument)}"


def synopsis_of(argument):
    text = value_of(argument) if argument["kind"] == "positional" else name_of(argument["preferredName"])
    if argument["kind"] == "option":
        text += " " + value_of(argument)
    if argument["isRepeating"]:
        text += " ..."
    return f"[{text}]" if argument["isOptional"] else text


def page(command, path, parents, children, files):
    shown = [argument for argument in command.get("arguments", []) if argument["shouldDisplay"]]
    title = "-".join(path)
    lines = [f'.TH "{title.upper()}" 1', ".SH NAME", f"{escape(title)} \\- {escape(command['abstract'])}", ".SH SYNOPSIS",
             f"\\fB{escape(' '.join(path))}\\fR " + " ".join(["\\fIcommand\\fR"] * bool(children) + [*map(synopsis_of, shown)])]
    paragraphs = command["discussion"].split("\n\n") if command.get("discussion") else []
    codes = [paragraph for paragraph in paragraphs if paragraph.startswith(CODES)]
    if len(paragraphs) > len(codes):
        lines.append(".SH DESCRIPTION")
        for paragraph in paragraphs:
            if paragraph in codes:
                continue
            lines.append(".PP")
            for line in paragraph.splitlines():
                # An indented line is one of a list.
                lines += [".br"] * line.startswith("  ") + [escape(line.strip())]
    if shown:
        lines.append(".SH OPTIONS")
    for argument in shown:
        text = argument.get("abstract", "")
        if argument.get("allValues"):
            text += f" One of: {', '.join(argument['allValues'])}."
        if argument.get("defaultValue") and argument["kind"] != "flag":
            text += f" The default is {argument['defaultValue']}."
        lines += [".TP", head_of(argument), escape(text)]
    if codes:
        lines.append(".SH EXIT STATUS")
    for code in (code for paragraph in codes for code in paragraph.removeprefix(CODES).removesuffix(".").split("; ")):
        number, _, text = code.partition(" ")
        lines += [".TP", f"\\fB{int(number)}\\fR", escape(text) + "."]
    if children:
        lines.append(".SH COMMANDS")
    for child in children:
        lines += [".TP", f"\\fB{escape(child['commandName'])}\\fR", escape(child["abstract"])]
    if files:
        lines.append(".SH FILES")
        for file in files:
            lines += [".PP", f"\\fI{escape(file)}\\fR"]
    others = parents + [f"{title}-{child['commandName']}" for child in children]
    if others:
        lines += [".SH SEE ALSO", *(f".BR {escape(other)} (1)," for other in others[:-1]), f".BR {escape(others[-1])} (1)"]
    return "\n".join(lines) + "\n"


def write(command, folder, path, parents, files):
    path = [*path, command["commandName"]]
    children = [child for child in command.get("subcommands", []) if child["shouldDisplay"] and child["commandName"] != "help"]
    title = "-".join(path)
    (folder / f"{title}.1").write_text(page(command, path, parents, children, files))
    for child in children:
        write(child, folder, path, [title], [])


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    write(json.load(sys.stdin)["command"], folder, [], [], sys.argv[2:])


if __name__ == "__main__":
    main()
