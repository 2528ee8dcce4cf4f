// SIGBUS in the thread that faults: UFFD_FEATURE_SIGBUS. One handler for the process, and what keeps signals away from it.
#define _GNU_SOURCE
#include "cuffd_answer.h"
#include "cuffd_calls.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

// Initial-exec: no look-up of a thread's variable may take memory inside a signal handler.
static _Thread_local __attribute__((tls_model("initial-exec"))) struct {
    /// How many callers rely on signals being blocked.
    unsigned blocked;
    /// The last fault of this thread that nobody claimed, and how often memory had been given up when it came.
    uint64_t unclaimed, changes;
} this_thread;

static cuffd_fault_server server;
/// How often memory was about to be given up.
static _Atomic uint64_t changes;
static void (*forget_in_child)(void);
static struct sigaction previous;

/// Every signal but those that an instruction raises: blocked, these would kill the process past every crash handler.
static void fill_others(sigset_t *set) {
    static const int own[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS};
    sigfillset(set);
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) sigdelset(set, own[i]);
}

/// A handler that is to run once was called.
static atomic_flag has_run = ATOMIC_FLAG_INIT;

/// Does what would have happened without this handler.
static __attribute__((noinline)) void forward(int signal, siginfo_t *info, ucontext_t *context) {
    int is_handler = previous.sa_flags & SA_SIGINFO || (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN);
    int is_over = is_handler && previous.sa_flags & SA_RESETHAND && atomic_flag_test_and_set(&has_run);
    if (is_handler && !is_over) {
        // The kernel stores as many bytes of the mask as it has signals for, whatever the size of a sigset_t.
        sigset_t mask;
        sigemptyset(&mask);
        memcpy(&mask, &context->uc_sigmask, sizeof(uint64_t));
        sigorset(&mask, &mask, &previous.sa_mask);
        if (!(previous.sa_flags & SA_NODEFER)) sigaddset(&mask, signal);
        pthread_sigmask(SIG_SETMASK, &mask, NULL);
        if (previous.sa_flags & SA_SIGINFO)
            previous.sa_sigaction(signal, info, context);
        else
            previous.sa_handler(signal);
        return;
    }
    // The kernel ignores no fault, but it does ignore a signal that a process sent.
    if (!is_handler && previous.sa_handler == SIG_IGN && info->si_code <= 0) return;
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigaction(signal, &action, NULL);
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, signal);
    syscall(SYS_rt_tgsigqueueinfo, getpid(), (pid_t)syscall(SYS_gettid), signal, info);
    pthread_sigmask(SIG_UNBLOCK, &one, NULL);
}

static void on_sigbus(int signal, siginfo_t *info, void *context) {
    int error = errno;
    if (info->si_code == BUS_ADRERR) {
        uint64_t address = (uintptr_t)info->si_addr, before = atomic_load(&changes);
        // A thread that is cancelled here would leave its page in hand for ever.
        int cancelling;
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancelling);
        this_thread.blocked++;
        int answer = server(address);
        this_thread.blocked--;
        pthread_setcancelstate(cancelling, NULL);
        // Memory that was given up after the thread had faulted is nobody's now: if the thread can go on, it does; if
        // not, it comes back, and nothing was given up since it came before.
        int retries = answer == CUFFD_FAULT_UNCLAIMED &&
                      (this_thread.unclaimed != address || this_thread.changes != atomic_load(&changes));
        this_thread.unclaimed = retries ? address : 0;
        this_thread.changes = before;
        if (answer == CUFFD_FAULT_SERVED || retries) {
            errno = error;
            return;
        }
    }
    forward(signal, info, context);
    errno = error;
}

void cuffd_fault_signal_note_change(void) { atomic_fetch_add(&changes, 1); }

static void in_child(void) { forget_in_child(); }

static int installed;

static void install(void) {
    struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    // A fault while a fault is served is a mistake that is to be told; no other signal may come between.
    fill_others(&action.sa_mask);
    installed = -pthread_atfork(NULL, NULL, in_child);
    if (installed != 0) return;
    // Known before a fault of another thread may ask for it.
    sigaction(SIGBUS, NULL, &previous);
    action.sa_flags |= previous.sa_flags & SA_RESTART;
    installed = CUFFD_ANSWER(sigaction(SIGBUS, &action, NULL));
}

int cuffd_fault_signal_install(cuffd_fault_server serve, void (*forget)(void)) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    server = serve;
    forget_in_child = forget;
    pthread_once(&once, install);
    return installed;
}

uint64_t cuffd_signals_block(void) {
    if (this_thread.blocked++ > 0) return 0;
    sigset_t others, before;
    fill_others(&others);
    pthread_sigmask(SIG_BLOCK, &others, &before);
    uint64_t mask;
    memcpy(&mask, &before, sizeof mask);
    return mask;
}

void cuffd_signals_restore(uint64_t mask) {
    if (--this_thread.blocked > 0) return;
    sigset_t before;
    sigemptyset(&before);
    memcpy(&before, &mask, sizeof mask);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

int cuffd_fault_signal_may_be_nested(void) { return this_thread.blocked > 1; }
