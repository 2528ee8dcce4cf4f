"""A page server that does as `criu dump --lazy-pages` of version 4.1.1 does, and can misbehave."""
import socket
import struct
import threading

from images import PAGE

MESSAGE = struct.Struct("<IIQQ")
GET, ADD, CLOSE, PRESENT = 7, 6, 0x1023, 4 << 16


class PageServer:
    """Serves pages by their addresses; `misbehave(number, message)` may return other bytes, or None to hang up.

    `closed` tells whether the client has said that all pages are there.
    """

    def __init__(self, pages, misbehave=None):
        self.pages, self.misbehave = pages, misbehave
        self.requests, self.closed, self.failure = 0, False, None
        self.reached, self.closing = threading.Event(), threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            connection, _ = self.listener.accept()
            with connection:
                self._serve(connection)
        except OSError as error:
            self.failure = error

    def _serve(self, connection):
        while header := connection.recv(MESSAGE.size, socket.MSG_WAITALL):
            command, count, address, task = MESSAGE.unpack(header)
            if command == CLOSE:
                self.closed = True
                connection.sendall(struct.pack("<i", 0))
                return
            assert command == GET, command
            self.requests += 1
            answer = self._pages(address, count)
            message = MESSAGE.pack(ADD | PRESENT, len(answer) // PAGE, address, task) + answer
            if self.misbehave:
                message = self.misbehave(self, self.requests, message)
            if message is None:
                return
            connection.sendall(message)

    def _pages(self, address, count):
        content = []
        for page in range(count):
            if (data := self.pages.get(address + page * PAGE)) is None:
                break
            content.append(data)
        return b"".join(content)

    def close(self):
        self.closing.set()
        self.listener.close()
        self.thread.join(10)
