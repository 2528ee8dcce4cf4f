#define _GNU_SOURCE
#include "css_privilege.h"

#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

int css_drop_capability(int capability)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];
    if (syscall(SYS_capget, &header, sets))
        return -errno;
    struct __user_cap_data_struct *set = &sets[CAP_TO_INDEX(capability)];
    uint32_t others = ~(uint32_t)CAP_TO_MASK(capability);
    set->effective &= others;
    set->permitted &= others;
    set->inheritable &= others;
    return syscall(SYS_capset, &header, sets) ? -errno : 0;
}

int css_unshare_user(void)
{
    return unshare(CLONE_NEWUSER) ? -errno : 0;
}

int css_unshare_processes(void)
{
    return unshare(CLONE_NEWPID) ? -errno : 0;
}

int css_limit_descriptors(uint64_t count)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit))
        return -errno;
    limit.rlim_cur = count;
    return setrlimit(RLIMIT_NOFILE, &limit) ? -errno : 0;
}
