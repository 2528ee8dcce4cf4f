// What the tests need of the system and Swift cannot do: filters, identities, and a process that owns memory.
#ifndef CTESTSUPPORT_H
#define CTESTSUPPORT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "CTSGuest.h"

/// From now on userfaultfd(2) answers -`error` to this process, as a container's seccomp profile would. 0 or -errno.
int cts_refuse_userfaultfd(int error);

/// From now on UFFDIO_POISON answers -`error` to this process. 0 or -errno.
int cts_refuse_poison(int error);

/// Becomes an ordinary user for good, without any capability; /proc/self stays readable. 0 or -errno.
int cts_become_user(uid_t user);

/// Mounts something else over /proc, for this process alone. 0 or -errno.
int cts_hide_proc(void);
/// Undoes it. 0 or -errno.
int cts_show_proc(void);

/// Sets the soft limit of open descriptors; answers the one before, or -errno.
long cts_limit_descriptors(long limit);

/// A process that registers one page of its memory for missing faults and sends the userfaultfd to its parent.
struct cts_owner {
    pid_t pid;
    /// The parent's end of the connection.
    int socket;
};

/// Forks the owner. Its message is the address of the page (8 bytes) with the descriptor. It then touches the page and
/// ends with the first byte of it as its exit code. 0 or -errno.
int cts_owner_start(struct cts_owner *owner);
/// Waits for the owner's end, killing it first where `kill_first` is set: its exit code, or -signal.
int cts_owner_end(struct cts_owner *owner, int kill_first);

/// Forks a child that ends with the byte at `address` as its exit code: its pid, or -errno. Unlike fork(3) this holds no
/// lock of the allocator while it waits for a fork event to be read.
int cts_fork_loader(uintptr_t address);
/// Forks a child that waits, without end.
int cts_fork_waiting(void);
/// Has the testing library note no more where errors are thrown, as it does from the first fork on: for tests in which
/// other threads may be taking such a note at that moment.
void cts_note_no_errors(void);
/// Sends the calling thread the signal by which glibc cancels one that can be cancelled anywhere. 0 or -errno.
int cts_cancel_self(void);
/// Kills a child and waits for its end: -SIGKILL.
int cts_kill(pid_t pid);
/// Waits for a child's end: its exit code, or -signal.
int cts_wait(pid_t pid);

/// From now on SIGBUS goes to a handler that jumps to the one that was there. 0 or -errno.
int cts_hand_on_faults(int flags);

/// A malformed message: `count` bytes and `descriptor_count` times the same descriptor.
ssize_t cts_send(int socket, const void *bytes, size_t count, int descriptor, size_t descriptor_count);

#endif
