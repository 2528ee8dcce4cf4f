#ifndef CSS_PRIVILEGE_H
#define CSS_PRIVILEGE_H

#include <stdint.h>

// Takes a capability from this process, which has one thread, for good: effective, permitted and inheritable.
int css_drop_capability(int capability);

// Enters a user namespace of its own, in which this process, which has one thread, has every capability.
int css_unshare_user(void);

// Lets the children that this process forks from now on live in a process id namespace of their own.
int css_unshare_processes(void);

// Limits the descriptor table: numbers from `count` on are not given out.
int css_limit_descriptors(uint64_t count);

#endif
