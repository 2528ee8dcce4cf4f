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
/// Gives up all capabilities of this process, for good.
int cps_drop_capabilities(void);
/// Sends a message with descriptors to the socket that systemd named in NOTIFY_SOCKET; 0 if there is none, else 1.
int cps_notify(const char *message, const int *descriptors, size_t count);

#endif
