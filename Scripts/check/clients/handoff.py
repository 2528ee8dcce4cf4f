"""Clients of this project's own protocol: the page of C, and its errors."""
import os
import subprocess

from harness import Pager, check, folder, memory_file, content, require
from memory import PAGE

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O2"]


@check
def handoff_page_of_c():
    size = 32 * PAGE
    with folder() as directory:
        client = directory / "client"
        subprocess.run(["cc", *FLAGS, "-o", client, f"{REPO}/Examples/handoff-client.c"], check=True)
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
