#define _GNU_SOURCE
#include "css_signals.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int caught;
static _Thread_local sigjmp_buf *volatile leave;

static void count_signal(int signal)
{
    (void)signal;
    __atomic_add_fetch(&caught, 1, __ATOMIC_SEQ_CST);
}

static void leave_on_signal(int signal)
{
    count_signal(signal);
    if (leave)
        siglongjmp(*leave, 1);
}

int css_catch_signal(bool restarts)
{
    struct sigaction action = {.sa_handler = count_signal, .sa_flags = restarts ? SA_RESTART : 0};
    return sigaction(SIGUSR1, &action, NULL) ? -errno : 0;
}

int css_catch_signal_by_leaving(void)
{
    struct sigaction action = {.sa_handler = leave_on_signal};
    return sigaction(SIGUSR1, &action, NULL) ? -errno : 0;
}

int css_unblock_signal(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    return -pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

int css_signals_caught(void)
{
    return __atomic_load_n(&caught, __ATOMIC_SEQ_CST);
}

int css_signal_thread(pid_t thread)
{
    return syscall(SYS_tgkill, getpid(), thread, SIGUSR1) ? -errno : 0;
}

bool css_load8_or_leave(uintptr_t address, uint8_t *value)
{
    sigjmp_buf back;
    if (sigsetjmp(back, 1)) {
        leave = NULL;
        return false;
    }
    leave = &back;
    *value = *(const volatile uint8_t *)address;
    leave = NULL;
    return true;
}

ssize_t css_read(int descriptor, void *bytes, size_t count)
{
    ssize_t answer = read(descriptor, bytes, count);
    return answer < 0 ? -errno : answer;
}

ssize_t css_read_nowait(int descriptor, void *bytes, size_t count)
{
    struct iovec vector = {.iov_base = bytes, .iov_len = count};
    ssize_t answer = preadv2(descriptor, &vector, 1, -1, RWF_NOWAIT);
    return answer < 0 ? -errno : answer;
}

ssize_t css_readv2(int descriptor, void *first, size_t first_count, void *second, size_t second_count)
{
    struct iovec vectors[] = {
        {.iov_base = first, .iov_len = first_count},
        {.iov_base = second, .iov_len = second_count},
    };
    ssize_t answer = readv(descriptor, vectors, 2);
    return answer < 0 ? -errno : answer;
}

void css_exit_thread_clearing(uintptr_t address)
{
    syscall(SYS_set_tid_address, address);
    syscall(SYS_exit, 0);
}
