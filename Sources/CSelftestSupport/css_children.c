#define _GNU_SOURCE
#include "css_children.h"

#include "css_kernel_access.h"
#include "css_pin.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// Headers before Linux 6.1 do not know the device.
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

struct css_step *css_steps_create(size_t count)
{
    void *steps = mmap(NULL, count * sizeof(struct css_step), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return steps == MAP_FAILED ? NULL : steps;
}

void css_steps_destroy(struct css_step *steps, size_t count)
{
    munmap(steps, count * sizeof(struct css_step));
}

static int64_t pagemap_word(uintptr_t address)
{
    uint64_t word;
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (pagemap < 0)
        return -errno;
    ssize_t count = pread(pagemap, &word, sizeof word, (off_t)(address / (uintptr_t)getpagesize() * sizeof word));
    int64_t answer = count == sizeof word ? (int64_t)word : count < 0 ? -errno : -EIO;
    close(pagemap);
    return answer;
}

static int64_t count_equal(struct css_step *step)
{
    int64_t equal = 0;
    uint8_t byte;
    for (uint64_t i = 0; i < step->length; i++) {
        if (!css_load8(step->address + i, &byte, &step->fault))
            return -step->fault.signal;
        equal += byte == (uint8_t)step->argument;
    }
    return equal;
}

static int64_t pin(const struct css_step *step)
{
    int file = (int)(int64_t)step->argument;
    int64_t answer =
        file < 0 ? css_pin_by_gup_test(step->address, step->length) : css_write_directly(file, step->address, step->length);
    return answer < 0 ? answer : 0;
}

static int64_t pause_here(int reports, int orders)
{
    char byte = 0;
    if (write(reports, &byte, 1) != 1)
        return -errno;
    return read(orders, &byte, 1) == 1 ? 0 : -EPIPE;
}

static int open_by_device(int flags)
{
    int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (device < 0)
        return -1;
    int descriptor = ioctl(device, USERFAULTFD_IOC_NEW, flags);
    int error = errno;
    close(device);
    errno = error;
    return descriptor;
}

static int64_t guard_memory(const struct css_step *step)
{
    const uint64_t kernel_faults = UINT64_C(1) << 63;
    const int user_mode_only = 1;
    int flags = O_NONBLOCK | O_CLOEXEC;
    int descriptor = (int)syscall(SYS_userfaultfd, step->argument & kernel_faults ? flags : flags | user_mode_only);
    // Linux 5.10 does not know the flag.
    if (descriptor < 0 && errno == EINVAL)
        descriptor = (int)syscall(SYS_userfaultfd, flags);
    // Whoever may open the device needs no privilege for the kernel's faults, and no filter that lets the call through.
    if (descriptor < 0 && (errno == EPERM || errno == ENOSYS))
        descriptor = open_by_device(flags);
    struct uffdio_api api = {.api = UFFD_API, .features = step->argument & ~kernel_faults};
    struct uffdio_register memory = {
        .range = {.start = step->address, .len = step->length},
        .mode = UFFDIO_REGISTER_MODE_MISSING,
    };
    if (descriptor < 0 || ioctl(descriptor, UFFDIO_API, &api) || ioctl(descriptor, UFFDIO_REGISTER, &memory))
        return -errno;
    return descriptor;
}

static int64_t run_step(struct css_step *step, int reports, int orders)
{
    uint8_t byte;
    void *address = (void *)step->address;
    switch (step->kind) {
    case css_step_load8:
        return css_load8(step->address, &byte, &step->fault) ? byte : -step->fault.signal;
    case css_step_store8:
        return css_store8(step->address, (uint8_t)step->argument, &step->fault) ? 0 : -step->fault.signal;
    case css_step_pagemap:
        return pagemap_word(step->address);
    case css_step_madvise:
        return madvise(address, step->length, (int)step->argument) ? -errno : 0;
    case css_step_munmap:
        return munmap(address, step->length) ? -errno : 0;
    case css_step_mremap:
        address = mremap(address, step->length, step->length, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)step->argument);
        return address == MAP_FAILED ? -errno : (int64_t)(uintptr_t)address;
    case css_step_pause:
        return pause_here(reports, orders);
    case css_step_count8:
        return count_equal(step);
    case css_step_ioctl:
        return ioctl((int)step->argument, step->length, address) < 0 ? -errno : 0;
    case css_step_pin:
        return pin(step);
    case css_step_guard:
        return guard_memory(step);
    case css_step_access:
        byte = 0xEE;
        return css_kernel_access((enum css_access)step->argument, getppid(), step->address, step->length, &byte);
    case css_step_exec:
        execl("/bin/sleep", "sleep", "1000", NULL);
        return -errno;
    case css_step_abort:
        setrlimit(RLIMIT_CORE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY});
        prctl(PR_SET_DUMPABLE, 1);
        signal(SIGABRT, SIG_DFL);
        raise(SIGABRT);
        return -ECANCELED;
    }
    return -EINVAL;
}

int css_child_start(struct css_child *child, struct css_step *steps, size_t count, bool shares_descriptors)
{
    int reports[2], orders[2];
    if (pipe2(reports, O_CLOEXEC))
        return -errno;
    if (pipe2(orders, O_CLOEXEC)) {
        int error = errno;
        close(reports[0]);
        close(reports[1]);
        return -error;
    }
    // Not fork(3): it holds malloc's locks until the FORK event is read, and so would stop the thread that reads it.
    int flags = SIGCHLD | (shares_descriptors ? CLONE_FILES : 0);
    pid_t pid = (pid_t)syscall(SYS_clone, flags, NULL, NULL, NULL, NULL);
    if (pid == 0) {
        if (!shares_descriptors) {
            close(reports[0]);
            close(orders[1]);
        }
        for (size_t i = 0; i < count; i++) {
            steps[i].result = run_step(&steps[i], reports[1], orders[0]);
            __atomic_store_n(&steps[i].done, 1, __ATOMIC_RELEASE);
        }
        _exit(0);
    }
    int error = errno;
    // Closed here they would be closed for the child too; the end of such a child is seen by waiting for it.
    if (!shares_descriptors) {
        close(reports[1]);
        close(orders[0]);
    }
    *child = (struct css_child){.pid = pid, .reports = reports[0], .orders = orders[1]};
    if (pid > 0)
        return 0;
    css_child_close(child);
    return -error;
}

static void *read_message(void *argument)
{
    struct css_fork_reader *reader = argument;
    struct pollfd descriptor = {.fd = reader->userfaultfd, .events = POLLIN};
    int ready = poll(&descriptor, 1, reader->milliseconds);
    if (ready <= 0) {
        reader->answer = ready ? -errno : -ETIMEDOUT;
    } else {
        ssize_t count = read(reader->userfaultfd, reader->message, sizeof reader->message);
        reader->answer = count < 0 ? -errno : count;
    }
    return NULL;
}

int css_fork_reader_start(struct css_fork_reader *reader)
{
    pthread_t thread;
    int answer = pthread_create(&thread, NULL, read_message, reader);
    reader->thread = (uintptr_t)thread;
    return -answer;
}

void css_fork_reader_join(struct css_fork_reader *reader)
{
    pthread_join((pthread_t)reader->thread, NULL);
}

bool css_has_ended(pid_t child)
{
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)child, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == child;
}

int css_child_wait(const struct css_child *child, int *status)
{
    pid_t pid;
    do
        pid = waitpid(child->pid, status, 0);
    while (pid < 0 && errno == EINTR);
    return pid < 0 ? -errno : 0;
}

void css_child_close(struct css_child *child)
{
    close(child->reports);
    close(child->orders);
}
