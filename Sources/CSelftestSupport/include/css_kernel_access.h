#ifndef CSS_KERNEL_ACCESS_H
#define CSS_KERNEL_ACCESS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// Ways in which the kernel touches user memory on behalf of a system call.
enum css_access : uint32_t {
    css_access_read,      // read(2) from a pipe stores into it
    css_access_write,     // write(2) to a pipe loads from it
    css_access_vm_read,   // process_vm_readv(2) loads from it
    css_access_vm_write,  // process_vm_writev(2) stores into it
    css_access_vmsplice,  // vmsplice(2) takes its page
    css_access_mem_read,  // pread(2) of /proc/PID/mem loads from it
    css_access_mem_write, // pwrite(2) of /proc/PID/mem stores into it
    css_access_uring,     // io_uring reads from a pipe and stores into it
};

enum : uint64_t {
    css_access_limit = 2 * 65536,  // the most bytes of one access: two pages of the largest size
};

// Has the kernel touch `count` bytes at `address` of process `pid` (0: this one, the only one for the calls that know
// no other). Stores fill the bytes with `*byte`; loads answer the first of them in `*byte`.
// The bytes transferred, or -errno.
ssize_t css_kernel_access(enum css_access access, pid_t pid, uintptr_t address, size_t count, uint8_t *byte);

#endif
