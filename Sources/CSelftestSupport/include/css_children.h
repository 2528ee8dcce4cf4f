#ifndef CSS_CHILDREN_H
#define CSS_CHILDREN_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "css_guard.h"

// A forked child may do little: no Swift, no malloc, no lock. Therefore it is told what to do as a list of steps,
// which lies in shared memory, so that the answers are where the parent can read them.

enum css_step_kind : uint32_t {
    css_step_load8,    // result: the byte, or -signal
    css_step_store8,   // argument: the byte; result: 0 or -signal
    css_step_pagemap,  // result: the word of /proc/self/pagemap for the page at address, or -errno
    css_step_madvise,  // length, argument: advice; result: 0 or -errno
    css_step_munmap,   // length; result: 0 or -errno
    css_step_mremap,   // length stays, argument: the new address (MREMAP_FIXED); result: the address or -errno
    css_step_pause,    // says to the parent that it is here, and waits until the parent lets it go on
    css_step_count8,   // length, argument: a byte; result: how many bytes are equal to it, or -signal
    css_step_ioctl,    // address: the ioctl's argument, length: its request, argument: the descriptor;
                       // result: 0 or -errno
    css_step_pin,      // length; argument: an O_DIRECT file that it is written to, or -1 to pin it by gup_test for as
                       // long as the child lives; result: 0 or -errno
    css_step_guard,    // length, argument: features, and bit 63 for kernel faults too; registers the child's own memory
                       // for missing faults of a userfaultfd of its own; result: the descriptor or -errno
    css_step_access,   // length, argument: enum css_access; has the kernel touch the parent's memory;
                       // result: bytes or -errno
    css_step_exec,     // becomes another program, which sleeps; result: -errno
    css_step_abort,    // dies of SIGABRT with a core dump
};

struct css_step {
    enum css_step_kind kind;
    uint32_t done;  // 1 once the child has done it
    uintptr_t address;
    uint64_t length;
    uint64_t argument;
    int64_t result;
    struct css_fault fault;
};

struct css_child {
    pid_t pid;
    int32_t reports;  // readable: one byte for each pause that the child has reached; end of file when it is gone
    int32_t orders;   // one byte written lets the child leave the pause
};

// Memory for steps that a child can write and the parent read; NULL when there is none.
struct css_step *css_steps_create(size_t count);
void css_steps_destroy(struct css_step *steps, size_t count);

// Forks a child that does the steps and ends with exit code 0. Any thread may fork it, and end before it does.
// With EVENT_FORK on, this returns only after another thread has read the event.
int css_child_start(struct css_child *child, struct css_step *steps, size_t count, bool shares_descriptors);

// Reads one message of a userfaultfd in a thread of its own while the caller forks. It allocates nothing: fork holds
// the allocator's locks until the event is read.
struct css_fork_reader {
    int userfaultfd;
    int milliseconds;
    uint8_t message[32];
    int64_t answer;  // 32, or -errno
    uintptr_t thread;
};
int css_fork_reader_start(struct css_fork_reader *reader);
void css_fork_reader_join(struct css_fork_reader *reader);

// Whether a child has ended; its wait status stays for `css_child_wait`.
bool css_has_ended(pid_t child);

// The child's wait status, or -errno. `css_child_close` closes the parent's ends of the pipes.
int css_child_wait(const struct css_child *child, int *status);
void css_child_close(struct css_child *child);

#endif
