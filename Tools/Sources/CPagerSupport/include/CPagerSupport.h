// What Swift cannot call: each answers a value >= 0, or -errno.
#ifndef CPAGERSUPPORT_H
#define CPAGERSUPPORT_H

#include <signal.h>
#include <stddef.h>

/// Blocks SIGTERM, SIGINT and SIGHUP for this thread, and answers a signalfd(2) for them, close-on-exec; `before` is set to
/// the mask that there was.
int cps_signals(sigset_t *before);
/// Takes a signal from such a descriptor: its number, and whether the terminal sent it.
int cps_next_signal(int signals, int *is_from_terminal);
/// Makes processes whose parents have ended children of this one, if they come from it.
int cps_adopt_orphans(void);
/// Sends a signal to the process of a pidfd.
int cps_signal_process(int process, int number);
/// Gives up all capabilities but the one to signal processes of other users, for good: of the calling thread, so that it
/// must be the only one.
int cps_drop_capabilities(void);
/// Raises the limit of open files to the highest that is allowed.
int cps_raise_file_limit(void);
/// The path that a listening Unix socket is bound to; -ENOTSOCK or -EINVAL if it is anything else.
int cps_socket_path(int socket, char *path, size_t size);
/// Whether a socket, which whoever has it shares, takes no connections any more; 1 or 0.
int cps_is_shut(int socket);
/// Sends a message with descriptors to the socket that systemd named in NOTIFY_SOCKET; 0 if there is none, else 1. -EAGAIN if
/// systemd has not taken it within so many seconds.
int cps_notify(const char *message, const int *descriptors, size_t count, unsigned seconds);

#endif
