#define _GNU_SOURCE
#include "css_kernel_access.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

// One read by io_uring: a ring of one entry, set up and torn down around it.
static ssize_t uring_read(int source, void *memory, size_t count)
{
    struct io_uring_params parameters = {0};
    int ring = (int)syscall(SYS_io_uring_setup, 1, &parameters);
    if (ring < 0)
        return -errno;
    ssize_t answer = -ENOMEM;
    size_t queue_size = parameters.sq_off.array + parameters.sq_entries * sizeof(uint32_t);
    size_t completed_size = parameters.cq_off.cqes + parameters.cq_entries * sizeof(struct io_uring_cqe);
    char *queue = mmap(NULL, queue_size, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
    char *completed = mmap(NULL, completed_size, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_CQ_RING);
    struct io_uring_sqe *entry =
        mmap(NULL, sizeof *entry, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
    if (queue != MAP_FAILED && completed != MAP_FAILED && entry != MAP_FAILED) {
        *entry = (struct io_uring_sqe){
            .opcode = IORING_OP_READ,
            .fd = source,
            .addr = (uintptr_t)memory,
            .len = (uint32_t)count,
        };
        ((uint32_t *)(queue + parameters.sq_off.array))[0] = 0;
        __atomic_store_n((uint32_t *)(queue + parameters.sq_off.tail), 1, __ATOMIC_RELEASE);
        if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
            answer = -errno;
        else
            answer = ((struct io_uring_cqe *)(completed + parameters.cq_off.cqes))->res;
    }
    munmap(queue, queue_size);
    munmap(completed, completed_size);
    munmap(entry, sizeof *entry);
    close(ring);
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
