#ifndef CSS_PROCESS_H
#define CSS_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// Starts this very program anew with `arguments`, in a session of its own, with a standard input that has ended,
// standard output and error in `output`, `count` of `descriptors` as 3 and those after it, and no other descriptor.
// Answers its pid.
int css_spawn_self(char *const arguments[], char *const environment[], int output, const int *descriptors, int count);

// What this program was started with, its name first.
int css_argument_count(void);
const char *css_argument(int index);

// Has all threads allocate from one place, instead of reserving 64 MiB of addresses for each.
void css_use_one_arena(void);

// In the process started: have it killed when `parent`, which started it, dies. -ESRCH when that has happened.
int css_die_with(pid_t parent);

// A pipe whose ends are close-on-exec, and whose reading end (ends[0]) does not block.
int css_pipe(int ends[2]);

int css_socket_pair(int ends[2]);

int css_become_subreaper(void);
int css_pidfd_open(pid_t pid);

struct css_exit {
    pid_t pid;       // 0: no child has ended
    int32_t code;    // valid when signal is 0
    int32_t signal;  // what ended it, or 0
};

// Takes the exit of child `pid` (-1: of any) if it has ended; never waits. -ECHILD when there is no such child.
int css_reap(pid_t pid, struct css_exit *exit);

// A descriptor from which SIGINT, SIGTERM and SIGHUP are read instead of their ending the process. SIGHUP stays ignored if it is,
// which nohup(1) asks for.
int css_signal_descriptor(void);
// The signal that `descriptor` holds, or 0.
int css_read_signal(int descriptor);
// Ends the process by `signal`, as if it had never been caught.
void css_die_of(int signal);

// How many columns the terminal has that `descriptor` is: 0 if it does not know, -errno if it is no terminal.
int css_terminal_columns(int descriptor);

// Swaps to `path` before all other swap space.
int css_swapon(const char *path);
int css_swapoff(const char *path);
int css_unshare_mounts(void);
int css_mount_tmpfs(const char *directory, const char *options);
int css_mount_hugetlbfs(const char *directory, const char *options);
int css_mount_ramfs(const char *directory);
bool css_is_tmpfs(const char *directory);

#endif
