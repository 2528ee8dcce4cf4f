#define _GNU_SOURCE
#include "css_guard.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

struct guard {
    sigjmp_buf back;
    struct css_fault fault;
};

static _Thread_local struct guard *volatile current;

static void on_fault(int signal, siginfo_t *info, void *context)
{
    (void)context;
    struct guard *guard = current;
    if (!guard) {
        // Nobody guards this access: let it happen again and end the process as it would have.
        struct sigaction plain = {.sa_handler = SIG_DFL};
        sigaction(signal, &plain, NULL);
        return;
    }
    guard->fault.signal = signal;
    guard->fault.code = info->si_code;
    guard->fault.address = (uintptr_t)info->si_addr;
    guard->fault.address_lsb =
        signal == SIGBUS && (info->si_code == BUS_MCEERR_AR || info->si_code == BUS_MCEERR_AO) ? info->si_addr_lsb : 0;
    current = NULL;
    siglongjmp(guard->back, 1);
}

static void install(void)
{
    // SA_NODEFER leaves the signal mask alone, so that the jump back has no mask to restore.
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
}

static void install_once(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install);
}

// Runs `access` with a way back, and leaves the function with false when it faulted.
#define GUARDED(access)                        \
    do {                                       \
        struct guard guard;                    \
        install_once();                        \
        if (sigsetjmp(guard.back, 0)) {        \
            if (fault)                         \
                *fault = guard.fault;          \
            return false;                      \
        }                                      \
        current = &guard;                      \
        __atomic_signal_fence(__ATOMIC_SEQ_CST); \
        access;                                \
        __atomic_signal_fence(__ATOMIC_SEQ_CST); \
        current = NULL;                        \
        return true;                           \
    } while (0)

bool css_load8(uintptr_t address, uint8_t *value, struct css_fault *fault)
{
    GUARDED(*value = *(const volatile uint8_t *)address);
}

bool css_store8(uintptr_t address, uint8_t value, struct css_fault *fault)
{
    GUARDED(*(volatile uint8_t *)address = value);
}

bool css_copy_in(void *to, uintptr_t from, size_t count, struct css_fault *fault)
{
    GUARDED(memcpy(to, (const void *)from, count));
}

bool css_copy_out(uintptr_t to, const void *from, size_t count, struct css_fault *fault)
{
    GUARDED(memcpy((void *)to, from, count));
}

static bool break_memory(uintptr_t address, size_t size, int *answer, struct css_fault *fault)
{
    GUARDED(*answer = madvise((void *)address, size, MADV_HWPOISON) ? -errno : 0);
}

int css_break_memory(uintptr_t address, size_t size)
{
    int answer = 0;
    struct css_fault fault;
    return break_memory(address, size, &answer, &fault) ? answer : fault.signal;
}
