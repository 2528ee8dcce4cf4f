"""What `criu restore --lazy-pages` says to the daemon, and what it must not say."""
import array
import ctypes
import fcntl
import mmap
import os
import socket
import struct

RESTORED = 0x52535446
UFFDIO_API, UFFD_API = 0xC018AA3F, 0xAA
UFFDIO_REGISTER = 0xC020AA00
FORK, REMAP, REMOVE, UNMAP = 1 << 1, 1 << 2, 1 << 3, 1 << 6
SYS_USERFAULTFD = 323
MAP_FIXED_NOREPLACE = 0x100000


def userfaultfd():
    """A userfaultfd as CRIU opens it."""
    descriptor = ctypes.CDLL(None, use_errno=True).syscall(SYS_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "userfaultfd")
    fcntl.ioctl(descriptor, UFFDIO_API, struct.pack("<QQQ", UFFD_API, FORK | REMAP | REMOVE | UNMAP, 0))
    return descriptor


def map_at(address):
    """Maps a page at an address, where nothing is."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED_NOREPLACE
    arguments = ctypes.c_void_p(address), ctypes.c_size_t(4096), mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, ctypes.c_long(0)
    if libc.mmap(*arguments) != address:
        raise OSError(ctypes.get_errno(), "mmap")


def register(descriptor, address):
    """Registers a page."""
    fcntl.ioctl(descriptor, UFFDIO_REGISTER, struct.pack("<QQQQ", address, 4096, 1, 0))


class Client:
    """A connection to the daemon."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)

    def send(self, data):
        self.socket.sendall(data)

    def name(self, task):
        self.send(struct.pack("<i", task))

    def send_descriptor(self, descriptor):
        self.socket.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))])

    def restored(self):
        self.send(struct.pack("<I", RESTORED))

    def close(self):
        self.socket.close()
