"""Runs a command under a seccomp filter that answers EPERM to a call: filtered.py CALL[:ERROR] COMMAND [ARGUMENT...]."""
import ctypes
import errno
import os
import struct
import sys

# Numbers of x86_64 and of aarch64.
CALLS = {
    "userfaultfd": (323, 282), "memfd_create": (319, 279), "madvise": (28, 233), "pidfd_open": (434, 434),
    "clone3": (435, 435), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "mseal": (462, 462), "mremap": (25, 216),
}
NAME, _, ERROR = sys.argv[1].partition(":")
CALL = CALLS[NAME][("x86_64", "aarch64").index(os.uname().machine)]
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | getattr(errno, ERROR or "EPERM")

# Each instruction: code, jump if true, jump if false, operand. The number of the system call is the first word.
PROGRAM = b"".join(struct.pack("=HBBI", *step) for step in (
    (LOAD, 0, 0, 0), (EQUAL, 0, 1, CALL), (RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW)))


class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_char_p)]


libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(Filter(len(PROGRAM) // 8, PROGRAM)), 0, 0):
    raise OSError(ctypes.get_errno(), "prctl")
os.execvp(sys.argv[2], sys.argv[2:])
