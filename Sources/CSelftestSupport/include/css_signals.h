#ifndef CSS_SIGNALS_H
#define CSS_SIGNALS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// Signals to single threads. SIGUSR1 is the one that is caught: its handler only counts.

// Catches SIGUSR1 in this process; with `restarts` system calls go on after it.
int css_catch_signal(bool restarts);
// Lets this thread receive SIGUSR1, which threads of the selftest have blocked.
int css_unblock_signal(void);
// How often the handler has run.
int css_signals_caught(void);
// Sends SIGUSR1 to a thread of this process.
int css_signal_thread(pid_t thread);

// Catches SIGUSR1 with a handler that jumps out of whatever its thread does in `css_load8_or_leave`.
int css_catch_signal_by_leaving(void);
// Reads a byte; false where SIGUSR1 made the thread leave before it had it.
bool css_load8_or_leave(uintptr_t address, uint8_t *value);

// Ends this thread; the kernel then clears the word at `address`, if it can.
void css_exit_thread_clearing(uintptr_t address);

// read(2): bytes or -errno; nothing is tried again.
ssize_t css_read(int descriptor, void *bytes, size_t count);
// preadv2(2) with RWF_NOWAIT at the current position.
ssize_t css_read_nowait(int descriptor, void *bytes, size_t count);
// readv(2) into two buffers.
ssize_t css_readv2(int descriptor, void *first, size_t first_count, void *second, size_t second_count);

#endif
