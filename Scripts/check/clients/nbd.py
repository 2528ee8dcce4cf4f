"""Machines whose memory comes from an NBD server."""
import shutil
import signal
import subprocess
import time

from firecracker import SIZE, serve_one
from harness import LIMIT, Pager, Skip, check, content, folder, memory_file, require


@check
def nbd_serves_machines():
    if not shutil.which("nbdkit"):
        raise Skip("needs nbdkit: install the package nbdkit")
    with folder() as directory:
        memory = memory_file(directory, SIZE)
        export = directory / "export"
        uri = f"nbd+unix:///?socket={export}"
        arguments = ("firecracker", "--socket", directory / "socket", "--memory", uri)
        server = subprocess.Popen(["nbdkit", "--foreground", "--unix", export, "file", memory])
        try:
            end = time.monotonic() + LIMIT
            while not export.exists():
                require(time.monotonic() < end, "nbdkit does not listen")
                time.sleep(0.01)
            with Pager(*arguments) as pager:
                while "listening" not in pager.output():
                    if pager.process.poll() == 69 and "built without NBD" in pager.output():
                        raise Skip("the program was built without NBD, because there is no libnbd-dev")
                    require(pager.process.poll() is None, pager.output())
                    time.sleep(0.01)
                serve_one(directory / "socket", content(SIZE))
                pager.says("ended")
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(LIMIT)
        with Pager(*arguments) as pager:
            pager.ends(66)
