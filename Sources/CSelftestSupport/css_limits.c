#define _GNU_SOURCE
#include "css_limits.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

// Below these the program cannot even say what is wrong.
static const rlim_t least_stack = 512 << 10;
static const rlim_t least_data = 8 << 20;
static const size_t least_addresses = 16 << 20;

static rlim_t raise_limit(int resource)
{
    struct rlimit limit;
    if (getrlimit(resource, &limit))
        return RLIM_INFINITY;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(resource, &limit);
    return limit.rlim_max;
}

static void end_with(const char *message)
{
    ssize_t ignored = write(STDERR_FILENO, message, strlen(message));
    (void)ignored;
    _exit(css_cannot_start);
}

// Before main, which needs more than the smallest limits allow. What any user may raise needs no remedy; the default
// limit of the stack is left alone, because it decides where the kernel maps memory.
__attribute__((constructor)) static void settle_limits(void)
{
    struct rlimit stack;
    if (getrlimit(RLIMIT_STACK, &stack) == 0 && stack.rlim_cur < least_stack) {
        stack.rlim_cur = stack.rlim_max < 8 << 20 ? stack.rlim_max : 8 << 20;
        setrlimit(RLIMIT_STACK, &stack);
        if (stack.rlim_cur < least_stack)
            end_with("uffd-selftest: the limit of the stack is too small: it needs 512 KiB (ulimit -s)\n");
    }
    if (raise_limit(RLIMIT_DATA) < least_data)
        end_with("uffd-selftest: the limit of data is too small: it needs 8 MiB, and 64 MiB for most cases (ulimit -d)\n");
    raise_limit(RLIMIT_FSIZE);
    void *addresses = mmap(NULL, least_addresses, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (addresses == MAP_FAILED)
        end_with("uffd-selftest: the limit of address space is too small: it needs 40 MiB, and 1 GiB for most cases (ulimit -v)\n");
    munmap(addresses, least_addresses);
}

static int is_refusal(long answer)
{
    return answer < 0 && (errno == EPERM || errno == ENOSYS);
}

const char *css_filtered_call(int *error)
{
    const char *name = NULL;
    long page = sysconf(_SC_PAGESIZE);
    void *memory = mmap(NULL, (size_t)page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory != MAP_FAILED && is_refusal(madvise(memory, (size_t)page, MADV_DONTNEED))) {
        name = "madvise";
        *error = errno;
    }
#ifdef SYS_clone3
    // Its argument is wrong. The C library does without the call if it is unknown, but not if it is refused.
    if (!name && syscall(SYS_clone3, NULL, 0) < 0 && errno == EPERM) {
        name = "clone3";
        *error = errno;
    }
#endif
    if (memory != MAP_FAILED)
        munmap(memory, (size_t)page);
    return name;
}
