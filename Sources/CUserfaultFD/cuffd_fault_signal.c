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
    /// Of the outermost of them: whether the thread could be cancelled.
    int cancelling;
    /// How many faults are served here: within one, no other frame is to be jumped over.
    unsigned serving;
    /// The last fault of this thread that nobody claimed, and how often memory had been given up when it came.
    uint64_t unclaimed, changes;
} this_thread;

static cuffd_fault_server server;
/// How often memory was about to be given up.
static _Atomic uint64_t changes;
static void (*forget_in_child)(void);
static struct sigaction previous;

static uint64_t bit_of(int signal) { return UINT64_C(1) << (signal - 1); }

/// Every signal but those that an instruction raises: blocked, these would kill the process past every crash handler.
///
/// The signal by which glibc cancels a thread is one of them: it may come when the thread cannot be cancelled any more, and
/// ends it all the same. The next one is not: for it, every thread waits that changes the process' user.
static uint64_t others(void) {
    enum { SETXID = 33 };
    return ~(bit_of(SIGSEGV) | bit_of(SIGBUS) | bit_of(SIGILL) | bit_of(SIGFPE) | bit_of(SIGTRAP) | bit_of(SIGSYS) |
             bit_of(SETXID));
}

/// As pthread_sigmask(3), which leaves out glibc's own signals.
static uint64_t change_mask(int how, uint64_t set) {
    uint64_t before = 0;
    syscall(SYS_rt_sigprocmask, how, &set, &before, sizeof set);
    return before;
}

/// Has the process end as if nobody handled the signal.
static void end_by(int signal, siginfo_t *info) {
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigaction(signal, &action, NULL);
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, signal);
    syscall(SYS_rt_tgsigqueueinfo, getpid(), (pid_t)syscall(SYS_gettid), signal, info);
    pthread_sigmask(SIG_UNBLOCK, &one, NULL);
}

/// Whether an instruction has raised it, and is executed again when the handler returns.
static int is_of_instruction(const siginfo_t *info) { return info->si_code > 0 && info->si_code != BUS_MCEERR_AO; }

/// A handler that is to run once was called.
static atomic_flag has_run = ATOMIC_FLAG_INIT;

/// Does what would have happened without this handler.
static __attribute__((noinline)) void forward(int signal, siginfo_t *info, ucontext_t *context) {
    // The handler could jump out of this thread's service, whose seat and page nobody would give back.
    if (this_thread.serving > 0 && is_of_instruction(info)) return end_by(signal, info);
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
    // The kernel ignores no fault, but it does ignore a signal that a process sent; the first process of a namespace, any
    // that it does not handle.
    int is_sent = !is_of_instruction(info);
    if (!is_handler && is_sent && (previous.sa_handler == SIG_IGN || getpid() == 1)) return;
    end_by(signal, info);
}

/// With every signal blocked that others can send, and SIGBUS not.
static inline __attribute__((always_inline)) void handle(int signal, siginfo_t *info, void *context) {
    if (info->si_code == BUS_ADRERR) {
        uint64_t address = (uintptr_t)info->si_addr, before = atomic_load(&changes);
        // A thread that is cancelled here would leave its page in hand for ever.
        int cancelling;
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancelling);
        this_thread.blocked++;
        this_thread.serving++;
        int answer = server(address);
        this_thread.serving--;
        this_thread.blocked--;
        pthread_setcancelstate(cancelling, NULL);
        // Memory that was given up after the thread had faulted is nobody's now: if the thread can go on, it does; if
        // not, it comes back, and nothing was given up since it came before.
        int retries = answer == CUFFD_FAULT_UNCLAIMED &&
                      (this_thread.unclaimed != address || this_thread.changes != atomic_load(&changes));
        this_thread.unclaimed = retries ? address : 0;
        this_thread.changes = before;
        if (answer == CUFFD_FAULT_SERVED || retries) return;
    }
    forward(signal, info, context);
}

// Where on_sigbus returns to if the kernel has called it with the mask that it was installed with, and only then: a handler
// that was installed later may hand a signal on under any mask, also by a jump, which leaves its own return address. The bytes
// are those by which debuggers and unwinders know the frame of a signal.
#if __has_feature(thread_sanitizer)
// It calls handlers itself, and only those that it was told of.
#elif defined(__x86_64__)
#define RETURN_FROM_SIGNAL "mov $15, %rax\n syscall\n"
#elif defined(__aarch64__)
#define RETURN_FROM_SIGNAL "mov x8, #139\n svc #0\n"
#endif

#ifdef RETURN_FROM_SIGNAL
void cuffd_return_from_signal(void) __attribute__((visibility("hidden")));
// Unwinders look up the byte before, which is to be in no function.
__asm__(".pushsection .text\n .p2align 4\n nop\n"
        ".globl cuffd_return_from_signal\n .hidden cuffd_return_from_signal\n"
        ".type cuffd_return_from_signal, %function\n"
        "cuffd_return_from_signal:\n" RETURN_FROM_SIGNAL
        ".size cuffd_return_from_signal, . - cuffd_return_from_signal\n .popsection\n");

static inline int is_direct(void *returns_to) { return returns_to == (void *)cuffd_return_from_signal; }

/// Sets the handler, and says which one was there.
static int set_handler(const struct sigaction *action, struct sigaction *before) {
    enum { HAS_RESTORER = 0x04000000 };
    struct {
        void (*handler)(int, siginfo_t *, void *);
        unsigned long flags;
        void (*restorer)(void);
        uint64_t mask;
    } installed = {action->sa_sigaction, (unsigned long)action->sa_flags | HAS_RESTORER, cuffd_return_from_signal, 0}, old;
    memcpy(&installed.mask, &action->sa_mask, sizeof installed.mask);
    int answer = CUFFD_ANSWER(syscall(SYS_rt_sigaction, SIGBUS, &installed, &old, sizeof installed.mask));
    if (answer != 0) return answer;
    before->sa_sigaction = old.handler;
    before->sa_flags = (int)(old.flags & ~(unsigned long)HAS_RESTORER);
    sigemptyset(&before->sa_mask);
    memcpy(&before->sa_mask, &old.mask, sizeof old.mask);
    return 0;
}
#else
static inline int is_direct(void *returns_to) {
    (void)returns_to;
    return 0;
}

static int set_handler(const struct sigaction *action, struct sigaction *before) {
    return CUFFD_ANSWER(sigaction(SIGBUS, action, before));
}
#endif

/// Called by a handler that was installed later, under whatever mask that one has.
///
/// What is blocked here stays so until the kernel returns from that handler: another signal's would find SIGBUS as it was there.
static __attribute__((noinline)) void handle_handed_on(int signal, siginfo_t *info, void *context) {
    uint64_t before = change_mask(SIG_BLOCK, others());
    // A source may touch another pager's memory.
    change_mask(SIG_UNBLOCK, bit_of(SIGBUS));
    handle(signal, info, context);
    change_mask(SIG_BLOCK, before & bit_of(SIGBUS));
}

static void on_sigbus(int signal, siginfo_t *info, void *context) {
    int error = errno;
    if (is_direct(__builtin_return_address(0)))
        handle(signal, info, context);
    else
        handle_handed_on(signal, info, context);
    errno = error;
}

void cuffd_fault_signal_note_change(void) { atomic_fetch_add(&changes, 1); }

static void in_child(void) { forget_in_child(); }

static int installed;

static void install(void) {
    struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    // A fault while a fault is served is a mistake that is to be told; no other signal may come between.
    uint64_t mask = others();
    sigemptyset(&action.sa_mask);
    memcpy(&action.sa_mask, &mask, sizeof mask);
    installed = -pthread_atfork(NULL, NULL, in_child);
    if (installed != 0) return;
    // Known before a fault of another thread may ask for it.
    sigaction(SIGBUS, NULL, &previous);
    action.sa_flags |= previous.sa_flags & SA_RESTART;
    // Another thread may have set one since.
    struct sigaction before = previous;
    installed = set_handler(&action, &before);
    previous = before;
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
    // Cancelled, the thread would leave for ever what it has locked or in hand.
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &this_thread.cancelling);
    return change_mask(SIG_BLOCK, others());
}

void cuffd_signals_restore(uint64_t mask) {
    if (--this_thread.blocked > 0) return;
    change_mask(SIG_SETMASK, mask);
    pthread_setcancelstate(this_thread.cancelling, NULL);
}

void cuffd_complain(const void *text, size_t count) {
    // A signal handler can do nothing about it.
    if (write(STDERR_FILENO, text, count) < 0) return;
}

void cuffd_fault_signal_begin_serving(void) { this_thread.serving++; }
void cuffd_fault_signal_end_serving(void) { this_thread.serving--; }

int cuffd_fault_signal_may_be_nested(void) { return this_thread.blocked > 1; }
