"""Machines whose memory comes from an NBD server."""
import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import threading
import time

from checksums import becomes_stuck, damage, start, write_checksums
from firecracker import SIZE, machine_that_reads, serve_one
from harness import LIMIT, Machine, Pager, Skip, Wrong, becomes, check, content, expect_end, folder, memory_file, require
from memory import PAGE
from record import small_disk, that_hangs
from serve import ctl


@contextlib.contextmanager
def exporting(directory, *options, tls=(), named=False, size=SIZE):
    """nbdkit: the URI of what it exports, and its process; with a name for the certificate if it is to have one."""
    if not shutil.which("nbdkit"):
        raise Skip("needs nbdkit: install the package nbdkit")
    memory = memory_file(directory, size)
    export = directory / "export"
    # Its socket is there before it listens; this file only afterwards.
    sign = directory / "listens"
    sign.unlink(missing_ok=True)
    place, uri = ["--unix", export], f"nbd+unix:///?socket={export}"
    if named:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        place, uri = ["--ipaddr", "127.0.0.1", "--port", str(port)], f"nbd://localhost:{port}/"
    server = subprocess.Popen(["nbdkit", "--foreground", *place, "--pidfile", sign, *tls, *options[:1], "file",
                               memory, *options[1:]])
    try:
        end = time.monotonic() + LIMIT
        while not sign.exists():
            require(time.monotonic() < end and server.poll() is None, "nbdkit does not listen")
            time.sleep(0.01)
        yield uri, server
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(LIMIT)


@contextlib.contextmanager
def serving(directory, *options):
    """nbdkit, and what uffd-pager gets to serve machines from it."""
    with exporting(directory, *options) as (uri, _):
        yield ("firecracker", "--socket", directory / "socket", "--memory", uri)


def requests(log):
    """How often the server was asked for content or holes, by the log of its filter."""
    return sum(" Read id=" in line or " Extents id=" in line for line in log.read_text().splitlines())


def begins_to_read(log):
    becomes(lambda: log.exists() and " Read id=" in log.read_text(), True, "whether the server is read")


def skip_without_nbd(text):
    if "built without NBD" in text:
        raise Skip("the program was built without NBD, because there is no libnbd-dev")


def ends(pager, code):
    """Waits for its end; a program without NBD has another one."""
    if pager.process.wait(LIMIT) == 69:
        skip_without_nbd(pager.output())
    pager.ends(code)


def skip_unless_listening(pager):
    try:
        pager.says("listening")
    except Wrong:
        skip_without_nbd(pager.output())
        raise


def serve(pager, directory):
    skip_unless_listening(pager)
    serve_one(directory / "socket", content(SIZE))
    pager.says(": ended ")


@check
def nbd_serves_machines():
    with folder() as directory:
        with serving(directory) as arguments, Pager(*arguments) as pager:
            serve(pager, directory)
        with Pager(*arguments) as pager:
            pager.ends(66)
            require("start the NBD server" in pager.output(), pager.output())
    with folder() as directory:
        with exporting(directory, "--filter=exportname", "exportname=right", "exportname-strict=true") as (uri, _):
            refuse(66, directory, uri.replace("///", "///wrong"), because="'nbdinfo --list'")
            for scheme in ("NBD+unix", "nbd+vsock"):
                refuse(64, directory, uri.replace("nbd+unix", scheme), because="nbd, nbds, nbd+unix or nbds+unix URI")


@check
def nbd_cache_is_asked_in_place_of_the_server():
    with folder() as directory:
        log = directory / "log"
        cache = directory / "cache"
        cache.mkdir()

        def restore(revision):
            with Pager(*arguments, "--cache", f"{cache}:256M", "--cache-revision", revision) as pager:
                serve(pager, directory)
            return requests(log)

        with serving(directory, "--filter=log", f"logfile={log}") as arguments:
            first = restore("1")
            require(first > 0, "the server was asked for nothing")
            second = restore("1")
            require(second == first, f"the second restore made {second - first} requests")
            require(restore("2") > second, "another version of the memory came from the cache")


@check
def nbd_export_that_is_empty():
    with folder() as directory, exporting(directory, size=0) as (uri, _):
        refuse(66, directory, uri, because="is empty: 0 bytes, and the memory of a machine is needed")


@check
def nbd_export_that_ends_inside_a_block():
    """Its last page could never be loaded: that is told at the start."""
    blocks = ("blocksize-minimum=512", "blocksize-preferred=4096", "blocksize-maximum=32M", "blocksize-error-policy=error")
    with folder() as directory:
        with exporting(directory, "--filter=blocksize-policy", *blocks, size=SIZE + 100) as (uri, _):
            refuse(66, directory, uri, because=f"has {SIZE + 100} bytes and is read in blocks of 512: its last 100 bytes cannot "
                   "be read; give the server an image whose size is a multiple of that")


@check
def nbd_cache_needs_a_revision_and_a_folder():
    with folder() as directory:
        with serving(directory) as arguments:
            for options in (["--cache", directory], ["--cache-memory", "1M"], ["--cache-revision", "1"],
                            ["--cache", ":1G", "--cache-revision", "1"], ["--cache", directory, "--cache-revision", ""],
                            *(["--cache", f"{directory}:{size}", "--cache-revision", "1"] for size in ("-5", "1.5G", "+1G", "1X")),
                            *(["--cache-memory", size, "--cache-revision", "1"] for size in ("1X", "255K", "2T")),
                            ["--cache", directory, "--cache-revision", "x" * 900]):
                with Pager(*arguments, *options) as pager:
                    pager.ends(64)
            with Pager(*arguments, "--cache", directory / "nothing", "--cache-revision", "1") as pager:
                pager.ends(73)
        with Pager("firecracker", "--socket", directory / "socket", "--memory", memory_file(directory, SIZE), "--cache",
                   directory, "--cache-revision", "1") as pager:
            pager.ends(64)


def authority(directory, name):
    """An authority, and certificates of it for the server and a client, in a folder each."""
    if not shutil.which("certtool"):
        raise Skip("needs certtool: install the package gnutls-bin")
    (directory / name).mkdir()
    template = directory / name / "template"

    def certtool(what, *lines, **files):
        template.write_text("\n".join(lines))
        arguments = [f"--{option.replace('_', '-')}" + (f"={file}" if file else "") for option, file in files.items()]
        subprocess.run(["certtool", what, *arguments], check=True, capture_output=True)

    key = directory / name / "ca-key.pem"
    certtool("--generate-privkey", ecc=None, outfile=key)
    certificate = directory / name / "ca-cert.pem"
    certtool("--generate-self-signed", f"cn = {name}", "ca", "cert_signing_key", load_privkey=key, template=template,
             outfile=certificate)
    for role in ("server", "client"):
        place = directory / name / role
        place.mkdir()
        shutil.copy(certificate, place)
        own = place / f"{role}-key.pem"
        certtool("--generate-privkey", ecc=None, outfile=own)
        certtool("--generate-certificate", "cn = localhost", "dns_name = localhost", f"tls_www_{role}", load_privkey=own,
                 load_ca_certificate=certificate, load_ca_privkey=key, template=template,
                 outfile=place / f"{role}-cert.pem")
    return directory / name


def serve_encrypted(directory, uri, *options):
    with Pager("firecracker", "--socket", directory / "socket", "--memory", uri.replace("nbd", "nbds", 1), *options) as pager:
        serve(pager, directory)


def refuse(code, directory, uri, *options, because=""):
    with Pager("firecracker", "--socket", directory / "socket", "--memory", uri, *options) as pager:
        ends(pager, code)
        require(because in pager.output(), pager.output())


@check
def nbd_with_certificates():
    with folder() as directory:
        right, other = authority(directory, "right"), authority(directory, "other")
        tls = ("--tls=require", f"--tls-certificates={right / 'server'}")
        with exporting(directory, tls=(*tls, "--tls-verify-peer"), named=True) as (uri, _):
            serve_encrypted(directory, uri, "--tls-certificates", right / "client")
        # A server that takes anybody: who refuses is the client.
        with exporting(directory, tls=tls, named=True) as (uri, _):
            encrypted = uri.replace("nbd", "nbds", 1)
            # Another authority, none, folders without one, and no encryption.
            for address, folder_of in ((encrypted, other), (encrypted.replace("localhost", "127.0.0.1"), right)):
                refuse(66, directory, address, "--tls-certificates", folder_of / "client",
                       because="must be of the authority in ca-cert.pem, for the name")
            refuse(66, directory, encrypted, because="--tls-certificates FOLDER or --tls-psk-file FILE")
            refuse(66, directory, uri + "?tls-certificates=/etc",
                   because="--tls-certificates or --tls-psk-file, and not in the URI")
            refuse(66, directory, encrypted, "--tls-certificates", directory)
            refuse(66, directory, encrypted, "--tls-certificates", directory / "nothing")
            refuse(66, directory, uri, because="write nbds in place of nbd")
            refuse(64, directory, uri, "--tls-certificates", right / "client")
        # Without a name nothing is verified.
        with exporting(directory, tls=tls) as (uri, _):
            refuse(66, directory, uri.replace("nbd", "nbds", 1), "--tls-certificates", right / "client")


@check
def nbd_server_that_is_restarted():
    """Pages that are touched meanwhile wait."""
    with folder() as directory, contextlib.ExitStack() as until_the_end:
        with exporting(directory) as (uri, server):
            pager = until_the_end.enter_context(Pager(
                "firecracker", "--socket", directory / "socket", "--memory", uri, "--on-failure", "kill", "--once"))
            skip_unless_listening(pager)
            # It would wait until its clients have gone.
            server.kill()
        (directory / "export").unlink()
        machine = threading.Thread(target=serve_one, args=(directory / "socket", content(SIZE)), daemon=True)
        machine.start()
        # It was lost, and nobody is there.
        pager.says("the NBD server is gone", 2)
        pager.says("session=1")
        with exporting(directory):
            machine.join(LIMIT)
            require(not machine.is_alive(), "the machine still waits")
            pager.ends(0)


@check
def nbd_with_preshared_keys():
    with folder() as directory:
        right, other = directory / "right", directory / "other"
        # Without --tls-username it is the name of who runs the program: under systemd, nobody has logged in.
        right.write_text(f"alice:{'5a' * 32}\n{pwd.getpwuid(os.geteuid()).pw_name}:{'5b' * 32}\n")
        other.write_text(f"alice:{'a5' * 32}\n")
        with exporting(directory, tls=("--tls=require", f"--tls-psk={right}")) as (uri, _):
            serve_encrypted(directory, uri, "--tls-psk-file", right, "--tls-username", "alice")
            serve_encrypted(directory, uri, "--tls-psk-file", right)
            encrypted = uri.replace("nbd+", "nbds+")
            refuse(66, directory, encrypted, "--tls-psk-file", other, "--tls-username", "alice")
            refuse(64, directory, encrypted, "--tls-username", "alice")
            refuse(64, directory, encrypted, "--tls-psk-file", right, "--tls-certificates", directory)
            with Pager("serve", "--control", directory / "control") as pager:
                pager.says("ready")
                ctl(directory / "control", "add", "m", "--socket", directory / "m", "--memory", encrypted, "--tls-psk-file",
                    right, "--tls-username", "alice")
                serve_one(directory / "m", content(SIZE))
                text = ctl(directory / "control", "add", "n", "--socket", directory / "n", "--memory", encrypted,
                           "--tls-psk-file", other, "--tls-username", "alice", code=1)
                require("nbds" in text, text)


@check
def nbd_checksums_of_an_export():
    """Those of the file behind it, whose holes are not read; parts that fail are asked for again."""
    with folder() as directory:
        right, log = authority(directory, "right"), directory / "log"
        memory, sums, others = directory / "memory", directory / "sums", directory / "others"
        options = ("--filter=log", "--filter=error", f"logfile={log}", "error-pread=EIO", "error-pread-rate=30%")
        tls = ("--tls=require", f"--tls-certificates={right / 'server'}")
        with exporting(directory, *options, tls=tls, named=True, size=4 << 20) as (uri, _):
            os.truncate(memory, (3 << 30) + 100)
            with open(memory, "r+b") as file:
                file.seek(2 << 30)
                file.write(content(PAGE))
            encrypted = uri.replace("nbd", "nbds", 1)
            arguments = ("checksums", encrypted, "--output", others, "--tls-certificates")
            with Pager(*arguments, directory / "nothing") as pager:
                ends(pager, 66)
                require(not others.exists(), "there are checksums")
            with Pager(*arguments, right / "client") as pager:
                pager.ends(0)
            read = sum(" Read id=" in line for line in log.read_text().splitlines())
            require(5 <= read <= 100, f"{read} reads")
        write_checksums(memory, sums)
        require(sums.read_bytes() == others.read_bytes(), "a server has other checksums than its file")
        for arguments, code, because in (((encrypted,), 66, "--tls-certificates FOLDER"), ((uri,), 66, "start the NBD server"),
                                         ((memory, "--tls-certificates", right), 64, "are for nbds addresses"),
                                         (("nbd+vsock://2/",), 64, "nbds+unix URI"), (("http://host/x",), 64, "nbdkit read it")):
            with Pager("checksums", *arguments, "--output", directory / "new") as pager:
                pager.ends(code)
                require(because in pager.output(), pager.output())
                require(not (directory / "new").exists(), "there are checksums")


@check
def nbd_checksums_that_cannot_be_had():
    """A server that fails, and one that is slow while somebody interrupts the run."""
    with folder() as directory:
        sums = directory / "sums"
        sums.write_bytes(b"old")
        with exporting(directory, "--filter=error", "error-pread=EIO", "error-pread-rate=100%") as (uri, _), \
                Pager("checksums", uri, "--output", sums) as pager:
            ends(pager, 66)
            require("cannot be read from byte 0 on" in pager.output() and "the NBD server cannot read" in pager.output(),
                    pager.output())
        log = directory / "log"
        (directory / "export").unlink()
        with exporting(directory, "--filter=log", "--filter=delay", f"logfile={log}", "rdelay=60") as (uri, server), \
                Pager("checksums", uri, "--output", sums) as pager:
            begins_to_read(log)
            pager.process.send_signal(signal.SIGINT)
            pager.ends(-signal.SIGINT)
            # It would wait until it has answered.
            server.kill()
        require(sums.read_bytes() == b"old", "the file has changed")
        require(not list(directory.glob("sums.*")), "a part of a file is left")


@check
def nbd_checksums_are_written_whole():
    """Also if a signal comes while the disk hangs to which they are written."""
    with folder() as directory, small_disk(directory) as place:
        sums, log = place / "sums", directory / "log"
        refuse(66, directory, "nbd+unix:///?socket=/nowhere")
        with exporting(directory, "--filter=log", "--filter=delay", f"logfile={log}", "rdelay=1") as (uri, _):
            writer = start("checksums", uri, "--output", sums)
            begins_to_read(log)
            with that_hangs(place):
                becomes_stuck(writer)
                writer.send_signal(signal.SIGTERM)
            require(writer.wait(LIMIT) == -signal.SIGTERM, f"it ended with {writer.returncode}")
        require(sorted(os.listdir(place)) == ["lost+found", "sums"], f"there are {os.listdir(place)}")
        require(sums.stat().st_size == SIZE // PAGE * 4, "not all checksums are there")


@check
def nbd_pages_are_compared_with_checksums():
    """With a cache and without; what differs is not kept."""
    with folder() as directory, exporting(directory) as (uri, _):
        memory, sums = directory / "memory", directory / "sums"
        write_checksums(memory, sums)
        for options in ((), ("--cache-memory", "1M", "--cache-revision", "1")):
            arguments = ("firecracker", "--socket", directory / "socket", "--memory", uri, "--checksums", sums, *options)
            with Pager(*arguments) as pager:
                serve(pager, directory)
            damage(memory)
            with Pager(*arguments, "--retries", 2) as pager:
                skip_unless_listening(pager)
                with Machine(machine_that_reads, directory / "socket", content(SIZE)) as machine:
                    expect_end(machine, -signal.SIGBUS)
                pager.says(": ended ")
                # For each page once.
                require(pager.output().count("the memory is damaged") == 1, pager.output())
                # The page alone is lost, and comes when it is right.
                memory_file(directory, SIZE)
                serve_one(directory / "socket", content(SIZE))
                pager.process.terminate()
                pager.ends(1)
