"""The cache that the machines of uffd-pager serve share."""
from firecracker import SIZE, serve_one
from harness import check, content, folder, require
from nbd import exporting, requests, skip_without_nbd
from serve import ask, ctl, serving


def add_kept(control, directory, name, uri, revision):
    status, answer = ask(control, "POST", "/v1/machines", {
        "name": name, "socket": str(directory / name), "memory": uri, "cacheRevision": revision})
    if status == 422:
        skip_without_nbd(answer["error"])
    return status, answer


@check
def serve_cache_is_shared_by_machines():
    # In memory only, and in a file too.
    for is_kept in (False, True):
        with folder() as where:
            log = where / "log"
            options = ["--cache-memory", "16M"] + (["--cache", f"{where}:64M"] if is_kept else [])
            with exporting(where, "--filter=log", f"logfile={log}") as (uri, _), serving(*options) as served:
                share_a_cache(log, uri, *served)
            require((where / "chunks").exists() == is_kept, "the folder has a file, or has none")


def share_a_cache(log, uri, pager, directory, control):
    def restore(name, revision):
        status, answer = add_kept(control, directory, name, uri, revision)
        require(status == 201, f"{status}: {answer}")
        require(answer["specification"]["cacheRevision"] == revision, answer)
        serve_one(directory / name, content(SIZE))
        return requests(log)

    first = restore("a", "1")
    require(first > 0, "the server was asked for nothing")
    second = restore("b", "1")
    require(second == first, f"the second machine made {second - first} requests")
    metrics = ctl(control, "metrics")
    require(f'uffd_pager_cache_chunks_total{{from="source"}} {SIZE >> 16}\n' in metrics, metrics)
    require('uffd_pager_cache_chunks_total{from="memory"} 0\n' not in metrics, metrics)
    ctl(control, "add", "c", "--socket", directory / "c", "--memory", uri, "--cache-revision", "2")
    serve_one(directory / "c", content(SIZE))
    require(requests(log) > second, "another version of the memory came from the cache")
    status, answer = add_kept(control, directory, "d", str(directory / "memory"), "1")
    require(status == 422 and "NBD" in answer["error"], f"a file is kept: {answer}")
    pager.says(": ended ", 3)


@check
def serve_cache_revision_needs_a_cache():
    with folder() as where, exporting(where) as (uri, _), serving() as (_, directory, control):
        status, answer = add_kept(control, directory, "m", uri, "1")
        require(status == 422 and "--cache" in answer["error"], f"{status}: {answer}")
        require("uffd_pager_cache" not in ctl(control, "metrics"), "there are metrics of a cache")
