#define _GNU_SOURCE
#include "CBenchBaseline.h"
#include "cbb_abi.h"

#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

// A signal handler has no argument of ours, so one run's numbers lie here. Runs do not overlap.
static struct {
    int fd;
    uint64_t base;
    uint64_t source;
    uint64_t page_size;
    uint64_t noted;
} run;

static void on_sigbus(int signal, siginfo_t *information, void *context) {
    (void)signal;
    (void)context;
    uint64_t offset = ((uint64_t)information->si_addr & ~(run.page_size - 1)) - run.base;
    struct cuffd_copy argument = {.dst = run.base + offset, .src = run.source + offset, .len = run.page_size};
    ioctl(run.fd, CUFFD_IOC_COPY, &argument);
}

static void on_missing(int signal, siginfo_t *information, void *context) {
    (void)signal;
    (void)context;
    uint64_t offset = ((uint64_t)information->si_addr & ~(run.page_size - 1)) - run.base;
    void *page = (void *)(run.base + offset);
    mprotect(page, run.page_size, PROT_READ | PROT_WRITE);
    memcpy(page, (const void *)(run.source + offset), run.page_size);
}

static void on_read_only(int signal, siginfo_t *information, void *context) {
    (void)signal;
    (void)context;
    void *page = (void *)((uint64_t)information->si_addr & ~(run.page_size - 1));
    mprotect(page, run.page_size, PROT_READ | PROT_WRITE);
    run.noted += 1;
}

static uint64_t timed(int signal, void (*handler)(int, siginfo_t *, void *), size_t pages) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO}, before;
    sigaction(signal, &action, &before);
    uint64_t start = cbb_now();
    cbb_touch(run.base, pages, run.page_size, NULL, 1, NULL);
    uint64_t time = cbb_now() - start;
    sigaction(signal, &before, NULL);
    return time;
}

uint64_t cbb_touch_sigbus(int fd, uint64_t base, size_t pages, size_t page_size, uint64_t source) {
    run.fd = fd;
    run.base = base;
    run.source = source;
    run.page_size = page_size;
    return timed(SIGBUS, on_sigbus, pages);
}

uint64_t cbb_touch_mprotect(uint64_t base, size_t pages, size_t page_size, uint64_t source) {
    run.base = base;
    run.source = source;
    run.page_size = page_size;
    return timed(SIGSEGV, on_missing, pages);
}

uint64_t cbb_touch_sigsegv(uint64_t base, size_t pages, size_t page_size, uint64_t *dirty) {
    run.base = base;
    run.page_size = page_size;
    run.noted = 0;
    uint64_t start = cbb_now();
    mprotect((void *)base, pages * page_size, PROT_READ);
    timed(SIGSEGV, on_read_only, pages);
    uint64_t time = cbb_now() - start;
    *dirty = run.noted;
    return time;
}
