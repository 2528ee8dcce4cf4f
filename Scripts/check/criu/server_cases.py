"""What is tested with pages on a server, which may break its protocol: each case raises Trouble if it fails."""
import random
import signal
import struct

from harness import Trouble, case, expect, wait_until
from images import PAGE, leave_to_server
from server import PageServer


def with_server(host, dumps, misbehave=None, options=(), act=None):
    """Restores a task whose pages a server of ours has; returns how everybody ended."""
    dump = dumps["heap"].copy()
    server = PageServer(leave_to_server(dump.images, dump.task), misbehave)
    daemon = host.lazy_pages(dump, "--page-server", f"127.0.0.1:{server.port}", *options).ready()
    code = None
    try:
        try:
            host.restore(dump)
        except Trouble:
            # A task that cannot have its pages cannot always be restored.
            if not misbehave:
                raise
        else:
            if act:
                act(server, daemon)
            dump.go()
            code = host.reap(dump)
        ended = daemon.wait()
    finally:
        daemon.kill()
        server.close()
        host.kill_tasks(dump)
    return dump, server, ended, code


def lost(host, dumps, misbehave, message, options=(), act=None):
    """Pages are lost: the daemon says so, the server is not told to let its tasks go, and no task reads zeros."""
    dump, server, ended, code = with_server(host, dumps, misbehave, options, act)
    expect(ended.code == 1, f"the daemon ended with {ended.code}: {ended.output}")
    expect(message in ended.output, f"the daemon said: {ended.output}")
    expect(not server.closed, "the server was told that all pages are there")
    (result,) = dump.results()
    # Where the stack is lost, nobody is left to say it.
    expect(result == "" or result.startswith("signal 7"), f"the task found: {result}")
    expect(code != 0, "the task has ended as if nothing were lost")
    return code


@case
def page_server(host, dumps):
    dump, server, ended, code = with_server(host, dumps)
    expect(ended.code == 0 and code == 0, f"{code}, {ended.code}: {ended.output}")
    expect(dump.results() == ["ok 16384"], f"{dump.results()}")
    expect(server.closed, "the server was not told that all pages are there")


@case
def page_server_dies(host, dumps):
    for after in (1, 2, 9):
        lost(host, dumps, lambda _, number, message, after=after: None if number == after else message, "page server")


@case
def page_server_dies_inside_a_page(host, dumps):
    def cut(server, number, message):
        if number != 9:
            return message
        server.misbehave = lambda *_: None
        return message[:-100]

    lost(host, dumps, cut, "page server")


@case
def page_server_garbage(host, dumps):
    garbage = random.Random(1).randbytes(4096)
    lost(host, dumps, lambda _, number, message: garbage if number == 9 else message, "page server breaks the protocol")


@case
def page_server_other_pages(host, dumps):
    def other(_, number, message):
        fields = list(struct.unpack_from("<IIQQ", message))
        fields[2] += PAGE
        return struct.pack("<IIQQ", *fields) + message[24:] if number == 9 else message

    lost(host, dumps, other, "pages that were not asked for")


@case
def page_server_too_many_pages(host, dumps):
    def more(_, number, message):
        fields = list(struct.unpack_from("<IIQQ", message))
        fields[1] = 0xFFFFFFFF
        return struct.pack("<IIQQ", *fields) + message[24:] if number == 9 else message

    lost(host, dumps, more, "more pages than were asked for")


@case
def page_server_has_no_page(host, dumps):
    def nothing(_, number, message):
        return struct.pack("<IIQQ", 6, 0, 0, 0) if number > 9 else message

    lost(host, dumps, nothing, "could not be loaded")


@case
def page_server_is_not_there(host, dumps):
    dump = dumps["heap"]
    ended = host.lazy_pages(dump, "--page-server", "127.0.0.1:1").wait()
    expect(ended.code == 1 and "no connection to the page server" in ended.output, f"{ended.code}: {ended.output}")


@case
def killed_by_policy(host, dumps):
    def hang_up(_, number, message):
        return None if number == 9 else message

    code = lost(host, dumps, hang_up, "page server", ["--on-failure", "kill"])
    expect(code in (None, -signal.SIGKILL), f"the task ended with {code}")


@case
def told_to_stop(host, dumps):
    """The server goes silent, and the daemon is told to end: nobody waits for ever, and nobody reads zeros."""

    def stall(server, number, message):
        if number == 12:
            server.reached.set()
            server.closing.wait()
        return message

    def stop(server, daemon):
        wait_until(server.reached.is_set, "the server's silence")
        daemon.kill(signal.SIGTERM)

    lost(host, dumps, stall, "stopped", act=stop)
