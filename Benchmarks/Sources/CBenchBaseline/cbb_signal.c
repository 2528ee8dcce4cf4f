#define _GNU_SOURCE
#include "CBenchBaseline.h"
#include "cbb_abi.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

// A signal handler has no argument of ours, so one run's numbers lie here. Runs do not overlap.
static struct {
    struct cbb_signal_request request;
    struct sigaction before;
    uint64_t noted;
} run;

static void on_sigbus(int signal, siginfo_t *information, void *context) {
    (void)signal;
    (void)context;
    const struct cbb_signal_request *request = &run.request;
    uint64_t offset = ((uint64_t)information->si_addr & ~(request->page_size - 1)) - request->base;
    uint64_t left = request->length - offset;
    uint64_t length = request->window < left ? request->window : left;
    int answer = -1;
    switch (request->call) {
    case cbb_copy: {
        struct cuffd_copy argument = {.dst = request->base + offset, .src = request->source + offset, .len = length};
        answer = ioctl(request->fd, CUFFD_IOC_COPY, &argument);
        break;
    }
    case cbb_zeropage: {
        struct cuffd_zeropage argument = {.range = {.start = request->base + offset, .len = length}};
        answer = ioctl(request->fd, CUFFD_IOC_ZEROPAGE, &argument);
        break;
    }
    case cbb_continue: {
        struct cuffd_continue argument = {.range = {.start = request->base + offset, .len = length}};
        answer = ioctl(request->fd, CUFFD_IOC_CONTINUE, &argument);
        break;
    }
    default: break;
    }
    // Another thread may have been faster; anything else would fault for ever.
    if (answer != 0 && errno != EEXIST && errno != EAGAIN) abort();
}

static void on_missing(int signal, siginfo_t *information, void *context) {
    (void)signal;
    (void)context;
    const struct cbb_signal_request *request = &run.request;
    uint64_t offset = ((uint64_t)information->si_addr & ~(request->page_size - 1)) - request->base;
    void *page = (void *)(request->base + offset);
    mprotect(page, request->page_size, PROT_READ | PROT_WRITE);
    memcpy(page, (const void *)(request->source + offset), request->page_size);
}

static void on_read_only(int signal, siginfo_t *information, void *context) {
    (void)signal;
    (void)context;
    void *page = (void *)((uint64_t)information->si_addr & ~(run.request.page_size - 1));
    mprotect(page, run.request.page_size, PROT_READ | PROT_WRITE);
    run.noted += 1;
}

static void handle(int signal, void (*handler)(int, siginfo_t *, void *)) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    sigaction(signal, &action, &run.before);
}

void cbb_signal_start(const struct cbb_signal_request *request) {
    run.request = *request;
    handle(SIGBUS, on_sigbus);
}

void cbb_signal_stop(void) { sigaction(SIGBUS, &run.before, NULL); }

static uint64_t timed(int signal, void (*handler)(int, siginfo_t *, void *), uint64_t base, size_t pages) {
    handle(signal, handler);
    uint64_t start = cbb_now();
    cbb_touch(base, pages, run.request.page_size, NULL, 1, NULL);
    uint64_t time = cbb_now() - start;
    sigaction(signal, &run.before, NULL);
    return time;
}

uint64_t cbb_touch_mprotect(uint64_t base, size_t pages, size_t page_size, uint64_t source) {
    run.request = (struct cbb_signal_request){.base = base, .source = source, .page_size = page_size};
    return timed(SIGSEGV, on_missing, base, pages);
}

uint64_t cbb_touch_sigsegv(uint64_t base, size_t pages, size_t page_size, uint64_t *dirty) {
    run.request = (struct cbb_signal_request){.base = base, .page_size = page_size};
    run.noted = 0;
    uint64_t start = cbb_now();
    mprotect((void *)base, pages * page_size, PROT_READ);
    timed(SIGSEGV, on_read_only, base, pages);
    uint64_t time = cbb_now() - start;
    *dirty = run.noted;
    return time;
}
