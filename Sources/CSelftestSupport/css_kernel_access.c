#define _GNU_SOURCE
#include "css_kernel_access.h"
#include "css_ring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

// One read by io_uring: a ring of one entry, set up and torn down around it.
static ssize_t uring_read(int source, void *memory, size_t count)
{
    struct css_ring ring;
    int error = css_ring_open(&ring);
    if (error)
        return error;
    ssize_t answer = css_ring_read(&ring, source, (uintptr_t)memory, count, false);
    css_ring_close(&ring);
    return answer;
}

static int open_memory(pid_t pid, int flags)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/mem", (int)pid);
    return open(path, flags | O_CLOEXEC);
}

static ssize_t transfer(
    enum css_access access, pid_t pid, uintptr_t address, size_t count, uint8_t *bytes, const int pipe[2], int memory)
{
    void *target = (void *)address;
    struct iovec local = {.iov_base = bytes, .iov_len = count};
    struct iovec remote = {.iov_base = target, .iov_len = count};
    ssize_t answer = -ENOSYS;
    switch (access) {
    case css_access_read:
    case css_access_uring:
        if (write(pipe[1], bytes, count) != (ssize_t)count)
            return -EPIPE;
        if (access == css_access_uring)
            return uring_read(pipe[0], target, count);
        answer = read(pipe[0], target, count);
        break;
    case css_access_write:
        answer = write(pipe[1], target, count);
        break;
    case css_access_vmsplice:
        answer = vmsplice(pipe[1], &remote, 1, 0);
        break;
    case css_access_vm_read:
        answer = process_vm_readv(pid, &local, 1, &remote, 1, 0);
        break;
    case css_access_vm_write:
        answer = process_vm_writev(pid, &local, 1, &remote, 1, 0);
        break;
    case css_access_mem_read:
        answer = pread(memory, bytes, count, (off_t)address);
        break;
    case css_access_mem_write:
        answer = pwrite(memory, bytes, count, (off_t)address);
        break;
    }
    return answer < 0 ? -errno : answer;
}

ssize_t css_kernel_access(enum css_access access, pid_t pid, uintptr_t address, size_t count, uint8_t *byte)
{
    uint8_t bytes[css_access_limit];
    int pipe[2], memory = -1;
    if (count > sizeof bytes)
        return -E2BIG;
    if (pid == 0)
        pid = getpid();
    if (access == css_access_mem_read || access == css_access_mem_write) {
        // Who is no tracer may not write what the memory's owner may not; the end of this process lets go again.
        if (pid != getpid())
            ptrace(PTRACE_SEIZE, pid, NULL, NULL);
        memory = open_memory(pid, access == css_access_mem_read ? O_RDONLY : O_RDWR);
        if (memory < 0)
            return -errno;
    }
    if (pipe2(pipe, O_CLOEXEC)) {
        int error = errno;
        close(memory);
        return -error;
    }
    memset(bytes, *byte, count);
    ssize_t answer = transfer(access, pid, address, count, bytes, pipe, memory);
    // What was loaded into the pipe is read back, and only as much as is there.
    if ((access == css_access_write || access == css_access_vmsplice) && answer > 0)
        answer = read(pipe[0], bytes, (size_t)answer);
    *byte = bytes[0];
    close(pipe[0]);
    close(pipe[1]);
    if (memory >= 0)
        close(memory);
    return answer;
}
