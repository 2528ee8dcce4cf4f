"""What uffd-pager ctl makes of answers, whole or not, from servers of every kind."""
import contextlib
import socket
import subprocess

from harness import LIMIT, check, connect, folder, program, require
from serve import ctl


class FakeServer:
    """A control socket whose answers are the check's."""

    def __init__(self, directory, backlog=8):
        self.path = directory / "fake"
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(LIMIT)
        self.socket.bind(str(self.path))
        self.socket.listen(backlog)

    def close(self):
        self.socket.close()

    def begin(self, *arguments):
        """Starts ctl, and takes its request."""
        process = subprocess.Popen([program(), "ctl", *arguments, "--control", self.path], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        connection, _ = self.socket.accept()
        connection.settimeout(LIMIT)
        request = b""
        while b"\r\n\r\n" not in request:
            request += connection.recv(65536)
        return process, connection, request.decode()

    def answer(self, *parts, arguments=("list",), stays=False):
        """How ctl ends, and what it prints, if this is sent and the connection closed, or left open."""
        process, connection, _ = self.begin(*arguments)
        with contextlib.closing(connection):
            for part in parts:
                connection.sendall(part)
            if not stays:
                connection.close()
            output, errors = process.communicate(timeout=LIMIT)
            return process.returncode, output, errors


@check
def ctl_takes_answers_of_every_form():
    """However HTTP brings an answer, ctl prints it; when it is whole, ctl does not wait for the end of the connection."""
    chunked = b"HTTP/1.1 200 OK\r\nTRANSFER-ENCODING: chunked\r\n\r\n3\r\n{\"a\r\n4;x=y\r\n\": 1\r\n1\r\n}\r\n0\r\nT: x\r\n\r\n"
    counted = b"HTTP/1.1 200 OK\r\ncontent-LENGTH:8\r\n\r\n{\"a\": 1}"
    with folder() as directory, contextlib.closing(FakeServer(directory)) as server:
        for parts in ([chunked], [chunked[at:at + 1] for at in range(len(chunked))], [counted], [counted + b"more"],
                      [b"HTTP/1.1 100 Continue\r\n\r\n" + counted], [b"HTTP/1.0 200\r\n\r\n", b'{"a": 1}']):
            for stays in (False, True)[:1 if b"HTTP/1.0 200\r\n\r\n" in parts else 2]:
                found = server.answer(*parts, stays=stays)
                require(found == (0, '{"a": 1}\n', ""), f"{parts}: {found}")
        require(server.answer(b"HTTP/1.1 204 No Content\r\n\r\n", stays=True) == (0, "", ""), "nothing is something")
        refused = b'HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n11\r\n{"error": "no!"}\n\r\n0\r\n\r\n'
        code, _, errors = server.answer(refused)
        require(code == 77 and "no!" in errors, f"exit code {code}: {errors}")
        code, _, errors = server.answer(b"HTTP/1.1 500 Broken\r\nContent-Length: 4\r\n\r\noops")
        require(code == 1 and "the answer is 500: oops" in errors, f"exit code {code}: {errors}")


@check
def ctl_tells_answers_that_are_not_whole():
    begin = b"HTTP/1.1 200 OK\r\n"
    with folder() as directory, contextlib.closing(FakeServer(directory)) as server:
        for answer in (b"\r\n\r\n", begin, begin + b"Content-Length: 3\r\n\r\n{}", begin + b"Transfer-Encoding: chunked\r\n\r\n",
                       begin + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", begin + b"Content-Le"):
            code, output, errors = server.answer(answer)
            require(code == 69 and not output and f"{server.path}: the server has ended before it answered" in errors,
                    f"{answer}: exit code {code}: {errors}")
        code, _, errors = server.answer(arguments=("remove", "m"))
        require(code == 69 and "'uffd-pager ctl list' tells" in errors, f"exit code {code}: {errors}")
        for answer in (b"hello\r\n\r\n", begin + b"Content-Length: x\r\n\r\n", b"\0" * 70000, b"SSH-2.0-OpenSSH\r\n",
                       begin + b"Transfer-Encoding: chunked\r\n\r\nfoo\r\n", begin + b"A: " + b"x" * 200000):
            code, _, errors = server.answer(answer, stays=True)
            require(code == 69 and f"{server.path}: the answer is not HTTP" in errors, f"{answer[:99]}: exit code {code}: {errors}")


@check
def ctl_gives_up_answers_that_do_not_come():
    begin = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
    late = "does not answer within 1 seconds"
    with folder() as directory, contextlib.closing(FakeServer(directory, backlog=0)) as server:
        for parts in ((), (begin,), (begin[:9],)):
            code, _, errors = server.answer(*parts, arguments=("list", "--timeout", "1"), stays=True)
            require(code == 69 and late in errors, f"{parts}: exit code {code}: {errors}")
        process, connection, request = server.begin("list", "--timeout", "1")
        with contextlib.closing(connection), contextlib.suppress(BrokenPipeError, ConnectionResetError):
            require(request.startswith("GET /v1/machines HTTP/1.1\r\n"), f"the request is {request}")
            connection.sendall(begin[:9])
            while True:
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n"[9:] + begin[:9])
        errors = process.communicate(timeout=LIMIT)[1]
        require(process.returncode == 69 and late in errors, f"exit code {process.returncode}: {errors}")
        with contextlib.closing(connect(server.path)):
            require(late in ctl(server.path, "list", "--timeout", "1", code=69), "it is not told that the server takes nothing")
