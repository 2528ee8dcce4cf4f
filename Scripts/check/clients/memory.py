"""Memory of a client: mapped, registered with a userfaultfd, touched by the C library, which lets other threads run."""
import ctypes
import mmap
import os
import platform

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
LIBC.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
LIBC.memcpy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
LIBC.memcpy.restype = ctypes.c_void_p

PAGE = mmap.PAGESIZE
HUGE = 2 << 20
MAP_HUGETLB = 0x40000
SYS_USERFAULTFD = {"x86_64": 323, "aarch64": 282}[platform.machine()]
API, REGISTER, UNREGISTER = 0xC018AA3F, 0xC020AA00, 0x8010AA01
MODE_MISSING, MODE_MINOR = 1, 4
FEATURE_EVENT_FORK = 1 << 1
FEATURE_EVENT_REMOVE = 1 << 3
# Missing and minor faults of memory files, and what is dropped.
FEATURES_SHARED = FEATURE_EVENT_REMOVE | 1 << 5 | 1 << 10
MADV_REMOVE = 9


def answer(value):
    if value == -1 or value is None:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return value


def ioctl(descriptor, request, *words):
    room = (ctypes.c_uint64 * len(words))(*words)
    answer(LIBC.ioctl(descriptor, ctypes.c_ulong(request), room))
    return list(room)


class Memory:
    """Anonymous memory, or a mapping of a file."""

    def __init__(self, count, huge=False, file=-1):
        flags = mmap.MAP_SHARED if file >= 0 else mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self.page = HUGE if huge else PAGE
        self.count = count
        self.start = answer(LIBC.mmap(None, count, mmap.PROT_READ | mmap.PROT_WRITE,
                                      flags | (MAP_HUGETLB if huge else 0), file, 0))
        if self.start == ctypes.c_void_p(-1).value:
            answer(-1)

    def read(self, offset, count=8):
        room = ctypes.create_string_buffer(count)
        LIBC.memcpy(room, self.start + offset, count)
        return room.raw

    def write(self, offset, content):
        LIBC.memcpy(self.start + offset, content, len(content))

    def drop(self, offset, count, advice=mmap.MADV_DONTNEED):
        answer(LIBC.madvise(self.start + offset, count, advice))


class Userfaultfd:
    """Opened as Firecracker does: kernel-mode faults too, non-blocking."""

    def __init__(self, features=FEATURE_EVENT_REMOVE, negotiates=True):
        self.number = answer(LIBC.syscall(SYS_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK))
        if negotiates:
            ioctl(self.number, API, 0xAA, features, 0)

    def register(self, memory, mode=MODE_MISSING):
        ioctl(self.number, REGISTER, memory.start, memory.count, mode, 0)
