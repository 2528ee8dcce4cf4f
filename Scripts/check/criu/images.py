"""Image files of CRIU: read, and written again so that the pages are elsewhere."""
import os
import struct

COMMON, PAGEMAP = 0x54564319, 0x56084025
PARENT, LAZY, PRESENT = 1, 2, 4
PAGE = 4096


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def numbers(message):
    """The fields of a message that has numbers only."""
    at, fields = 0, {}
    while at < len(message):
        key, at = read_varint(message, at)
        fields[key >> 3], at = read_varint(message, at)
    return fields


def messages(path):
    """The messages of an image file, whose head has two words."""
    with open(path, "rb") as file:
        data = file.read()
    at = 8
    while at < len(data):
        (count,) = struct.unpack_from("<I", data, at)
        yield data[at + 4 : at + 4 + count]
        at += 4 + count


def process_ids(path):
    """The process ids in a pstree image, the first task's first."""
    return [numbers(message)[1] for message in messages(path)]


class Pagemap:
    """A pagemap image: the number of its pages' file, and runs of (address, pages, flags)."""

    def __init__(self, path):
        head, *runs = map(numbers, messages(path))
        self.pages_id = head[1]
        self.runs = [(fields[1], fields[2], fields[4]) for fields in runs]


def write_pagemap(path, pages_id, runs):
    messages = [b"\x08" + varint(pages_id)]
    for address, pages, flags in runs:
        messages.append(b"\x08" + varint(address) + b"\x10" + varint(pages) + b"\x20" + varint(flags))
    with open(path, "wb") as file:
        file.write(struct.pack("<II", COMMON, PAGEMAP))
        for message in messages:
            file.write(struct.pack("<I", len(message)) + message)


def contents(folder, pagemap):
    """Yields each run with the content of its pages."""
    with open(os.path.join(folder, f"pages-{pagemap.pages_id}.img"), "rb") as file:
        for address, pages, flags in pagemap.runs:
            yield address, pages, flags, file.read(pages * PAGE) if flags & PRESENT else b""


def move_to_parent(folder, task, parent):
    """Makes an incremental dump of a whole one: every other lazy page is in the parent's images."""
    path = os.path.join(folder, f"pagemap-{task}.img")
    pagemap = Pagemap(path)
    here, there = ([], []), ([], [])
    for address, pages, flags, content in list(contents(folder, pagemap)):
        if not flags & LAZY:
            here[0].append((address, pages, flags))
            here[1].append(content)
            continue
        for page in range(pages):
            run = address + page * PAGE
            if page % 2:
                here[0].append((run, 1, PARENT | LAZY))
                there[0].append((run, 1, PRESENT))
                there[1].append(content[page * PAGE : (page + 1) * PAGE])
            else:
                here[0].append((run, 1, flags))
                here[1].append(content[page * PAGE : (page + 1) * PAGE])
    for target, (runs, data) in ((folder, here), (parent, there)):
        write_pagemap(os.path.join(target, f"pagemap-{task}.img"), pagemap.pages_id, runs)
        with open(os.path.join(target, f"pages-{pagemap.pages_id}.img"), "wb") as file:
            file.writelines(data)


def leave_to_server(folder, task):
    """Takes the lazy pages out of the images, and returns them by their addresses."""
    path = os.path.join(folder, f"pagemap-{task}.img")
    pagemap = Pagemap(path)
    runs, data, left = [], [], {}
    for address, pages, flags, content in list(contents(folder, pagemap)):
        if flags & LAZY:
            runs.append((address, pages, LAZY))
            for page in range(pages):
                left[address + page * PAGE] = content[page * PAGE : (page + 1) * PAGE]
        else:
            runs.append((address, pages, flags))
            data.append(content)
    write_pagemap(path, pagemap.pages_id, runs)
    with open(os.path.join(folder, f"pages-{pagemap.pages_id}.img"), "wb") as file:
        file.writelines(data)
    return left
