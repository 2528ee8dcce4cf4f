"""An NBD server that breaks the protocol: misbehaving-server.py SOCKET FLAW

Its export has 1 MiB; each 64-bit word is its own offset, big-endian. It behaves for the first four reads of every
connection, and then does what FLAW says:

short      sends half of the bytes and closes the connection
silent     never replies again
cookie     replies to a request that was never made
magic      sends what is no reply
hole       a structured reply says that the whole range is a hole, and ends before it has covered the bytes
greets     closes each connection as soon as it is negotiated
asked      closes the connection when it is asked for holes
fragments  has 1 GiB of data and holes in turn, of 512 bytes each
twice      a structured reply has as many bytes as were asked for, but one half of the range twice and the other never
"""

import socket
import struct
import sys
import time

OPTION_REPLY = 0x3E889045565A9
NO_SUCH_OPTION = 1 << 31 | 1


def take(connection, count):
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionError
        data += part
    return data


def negotiate(connection):
    connection.sendall(b"NBDMAGIC" + b"IHAVEOPT" + struct.pack(">H", 3))
    take(connection, 4)
    structured = False
    while True:
        _, option, length = struct.unpack(">QII", take(connection, 16))
        take(connection, length)
        tells = FLAW in ("asked", "fragments", "flood", "tiny")
        reply = lambda kind, data=b"": connection.sendall(  # noqa: E731
            struct.pack(">QIII", OPTION_REPLY, option, kind, len(data)) + data)
        if option in (6, 7):  # INFO, GO
            reply(3, struct.pack(">HQH", 0, SIZE, 0x3))
            reply(1)
            if option == 7:
                return structured
        elif option == 8:  # STRUCTURED_REPLY
            structured = tells or FLAW in ("hole", "twice")
            reply(1 if structured else NO_SUCH_OPTION)
        elif option == 10 and tells:  # SET_META_CONTEXT
            reply(4, struct.pack(">I", 7) + b"base:allocation")
            reply(1)
        else:
            reply(NO_SUCH_OPTION)


def content(offset, count):
    return b"".join(struct.pack(">Q", place) for place in range(offset, offset + count, 8))


def serve(connection):
    structured = negotiate(connection)
    if FLAW == "greets":
        return
    reads = 0
    while True:
        _, _, command, cookie, offset, count = struct.unpack(">IHHQQI", take(connection, 28))
        if command == 7 and FLAW == "fragments":
            runs = b"".join(struct.pack(">II", 512, run % 2 * 3) for run in range(count // 512))
            reply = struct.pack(">I", 7) + runs
            connection.sendall(struct.pack(">IHHQI", 0x668E33EF, 1, 5, cookie, len(reply)) + reply)
            continue
        if command == 7 and FLAW == "flood":
            # The same holes again and again, and no end of them.
            runs = struct.pack(">II", 4096, 0) * 4096
            reply = struct.pack(">I", 7) + runs
            while True:
                connection.sendall(struct.pack(">IHHQI", 0x668E33EF, 0, 5, cookie, len(reply)) + reply)
        if command == 7 and FLAW == "tiny":
            # A byte at a time, of another kind than the last one.
            reply = struct.pack(">III", 7, 1, offset % 2 * 3)
            connection.sendall(struct.pack(">IHHQI", 0x668E33EF, 1, 5, cookie, len(reply)) + reply)
            continue
        if command != 0:
            return
        if FLAW == "drip":
            connection.sendall(struct.pack(">IIQ", 0x67446698, 0, cookie))
            while True:
                connection.sendall(b"x")
                time.sleep(0.05)
        reads += 1
        data = content(offset, count)
        if reads > 4 and FLAW == "silent":
            continue
        if reads > 4 and FLAW == "magic":
            connection.sendall(b"\0" * 16 + data)
            continue
        if reads > 4 and FLAW == "cookie":
            cookie ^= 0xFF
        if reads > 4 and FLAW == "twice":
            half = struct.pack(">Q", offset) + data[: count // 2]
            for flags in (0, 1):
                connection.sendall(struct.pack(">IHHQI", 0x668E33EF, flags, 1, cookie, len(half)) + half)
            continue
        if structured and reads > 4:
            # Half of the range is a hole, and the reply is over.
            connection.sendall(struct.pack(">IHHQI", 0x668E33EF, 1, 2, cookie, 12) + struct.pack(">QI", offset, count // 2))
            continue
        if structured:
            connection.sendall(struct.pack(">IHHQI", 0x668E33EF, 1, 1, cookie, 8 + count) + struct.pack(">Q", offset) + data)
            continue
        connection.sendall(struct.pack(">IIQ", 0x67446698, 0, cookie))
        if reads > 4 and FLAW == "short":
            connection.sendall(data[: count // 2])
            return
        connection.sendall(data)


path, FLAW = sys.argv[1:]
SIZE = 1 << 30 if FLAW == "fragments" else 1 << 20
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen()
while True:
    client, _ = listener.accept()
    with client:
        try:
            serve(client)
        except (ConnectionError, OSError):
            pass
