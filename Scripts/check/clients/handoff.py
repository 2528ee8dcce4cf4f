"""Clients of this project's own protocol: the page of C, and its errors."""
import subprocess

from harness import Pager, check, compile_c, content, folder, memory_file, require
from memory import PAGE


@check
def handoff_page_of_c():
    size = 32 * PAGE
    with folder() as directory:
        client = directory / "client"
        compile_c(client, "Examples/handoff-client.c")
        memory = memory_file(directory, size)
        with Pager("handoff", "--socket", directory / "socket", "--memory", memory) as pager:
            pager.says("listening")
            run = subprocess.run([client, directory / "socket", str(size - 100)], capture_output=True, check=False,
                                 timeout=60)
            require(run.returncode == 0, f"the client ended with {run.returncode}: {run.stderr!r}")
            require(run.stdout == content(size)[:-100], "the client read other bytes")
            pager.says(": ended ")
            more = subprocess.run([client, directory / "socket", str(size + 1)], capture_output=True, check=False,
                                  timeout=60)
            require(more.returncode == 1 and b"not served" in more.stderr, f"no refusal: {more.stderr!r}")
