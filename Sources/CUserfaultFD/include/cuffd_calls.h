// One function per system call. Like the kernel, each answers a value >= 0, or -errno.
//
// Nothing here loops, retries or decides, but for the handler of a signal; `errno` is never left for the caller to read.
// Output words are set to 0 before the call: old kernels leave them untouched on some failures.
#ifndef CUFFD_CALLS_H
#define CUFFD_CALLS_H

#include "cuffd_abi.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// MARK: userfaultfd (cuffd_uffd.c)

/// userfaultfd(2): the new descriptor. `flags`: O_CLOEXEC, O_NONBLOCK, CUFFD_USER_MODE_ONLY.
int cuffd_userfaultfd(int flags);
/// open("/dev/userfaultfd"): a descriptor for cuffd_device_new.
int cuffd_device_open(void);
/// USERFAULTFD_IOC_NEW: a new userfaultfd made by the device.
int cuffd_device_new(int device, int flags);
/// Any ioctl, with its argument passed through as it is.
int cuffd_ioctl(int fd, uint64_t request, void *argument);

int cuffd_api(int fd, uint64_t features, uint64_t *supported, uint64_t *ioctls);
int cuffd_register(int fd, uint64_t start, uint64_t len, uint64_t mode, uint64_t *ioctls);
int cuffd_unregister(int fd, uint64_t start, uint64_t len);
int cuffd_wake(int fd, uint64_t start, uint64_t len);
int cuffd_copy(int fd, uint64_t dst, uint64_t src, uint64_t len, uint64_t mode, int64_t *copied);
int cuffd_zeropage(int fd, uint64_t start, uint64_t len, uint64_t mode, int64_t *zeroed);
int cuffd_move(int fd, uint64_t dst, uint64_t src, uint64_t len, uint64_t mode, int64_t *moved);
int cuffd_writeprotect(int fd, uint64_t start, uint64_t len, uint64_t mode);
int cuffd_continue(int fd, uint64_t start, uint64_t len, uint64_t mode, int64_t *mapped);
int cuffd_poison(int fd, uint64_t start, uint64_t len, uint64_t mode, int64_t *updated);
int cuffd_rwprotect(int fd, uint64_t start, uint64_t len, uint64_t mode);
int cuffd_set_mode(int fd, uint64_t enable, uint64_t disable);
/// read(2) of up to `count` messages; answers bytes.
ssize_t cuffd_read_messages(int fd, struct cuffd_msg *messages, size_t count);
/// preadv2(2) with RWF_NOWAIT, which does not wait in blocking mode either; read(2) where the descriptor has no such reading:
/// before Linux 6.10, and those of the children of forks.
ssize_t cuffd_read_messages_now(int fd, struct cuffd_msg *messages, size_t count);

// MARK: Descriptors and waiting (cuffd_descriptor.c)

extern const int CUFFD_O_CLOEXEC;
extern const int CUFFD_O_NONBLOCK;
extern const int CUFFD_O_RDONLY;
extern const int CUFFD_O_RDWR;
extern const int CUFFD_O_CREAT;
extern const int CUFFD_O_NOFOLLOW;
extern const int CUFFD_SEEK_SET;
extern const int CUFFD_SEEK_CUR;
extern const int CUFFD_SEEK_END;
extern const int CUFFD_SEEK_DATA;
extern const int CUFFD_SEEK_HOLE;
extern const short CUFFD_POLLIN;
extern const short CUFFD_POLLOUT;
extern const short CUFFD_POLLERR;
extern const short CUFFD_POLLNVAL;

int cuffd_open(const char *path, int flags);
/// rename(2).
int cuffd_rename(const char *from, const char *to);
int cuffd_close(int fd);
/// A duplicate with close-on-exec set.
int cuffd_dup(int fd);
/// F_GETFL.
int cuffd_status_flags(int fd);
/// F_SETFL.
int cuffd_set_status_flags(int fd, int flags);
ssize_t cuffd_pread(int fd, void *bytes, size_t count, int64_t offset);
/// preadv2(2) with RWF_NOWAIT: what can be read without waiting for a disk; -EAGAIN for nothing.
ssize_t cuffd_pread_now(int fd, void *bytes, size_t count, int64_t offset);
ssize_t cuffd_pwrite(int fd, const void *bytes, size_t count, int64_t offset);
int cuffd_fsync(int fd);
/// lseek(2) to an offset from the start, from where it is, from the end, or to data from an offset on.
int64_t cuffd_seek(int fd, int64_t offset, int whence);
/// poll(2) of one descriptor: the events that are ready (POLL* bits), 0 on time-out. Negative time: no limit.
int cuffd_poll(int fd, short events, int milliseconds);
/// What poll(2) is asked of a descriptor, and what it answers; a negative descriptor is passed over.
struct cuffd_poll_entry {
    int fd;
    short events;
    short ready;
};
/// poll(2): how many entries are ready, 0 on time-out. Negative time: no limit.
int cuffd_poll_entries(struct cuffd_poll_entry *entries, int count, int milliseconds);
/// ioctl(2) FIONREAD: how many bytes can be read of a socket without waiting.
int cuffd_bytes_readable(int fd);
/// eventfd(2), close-on-exec and non-blocking.
int cuffd_eventfd(void);
/// Adds 1 to an eventfd.
int cuffd_eventfd_signal(int fd);
/// Takes an eventfd's count.
int cuffd_eventfd_drain(int fd);
/// epoll_create1(2), close-on-exec.
int cuffd_epoll_create(void);
/// EPOLL_CTL_ADD of EPOLLIN, level-triggered or edge-triggered.
int cuffd_epoll_add(int epoll, int fd, uint64_t token, int edge_triggered);
int cuffd_epoll_delete(int epoll, int fd);
/// epoll_wait(2) for up to 64 descriptors: how many tokens and EPOLL* masks were written.
int cuffd_epoll_wait(int epoll, uint64_t *tokens, uint32_t *events, int count, int milliseconds);

// MARK: Memory (cuffd_memory.c)

extern const int CUFFD_PROT_NONE;
extern const int CUFFD_PROT_READ;
extern const int CUFFD_PROT_WRITE;
extern const int CUFFD_PROT_EXEC;
extern const int CUFFD_MAP_SHARED;
extern const int CUFFD_MAP_PRIVATE;
extern const int CUFFD_MAP_ANONYMOUS;
extern const int CUFFD_MAP_FIXED;
extern const int CUFFD_MAP_FIXED_NOREPLACE;
extern const int CUFFD_MAP_NORESERVE;
extern const int CUFFD_MAP_POPULATE;
extern const int CUFFD_MAP_LOCKED;
extern const int CUFFD_MAP_HUGETLB;
extern const int CUFFD_MAP_HUGE_SHIFT;
extern const unsigned int CUFFD_MFD_CLOEXEC;
extern const unsigned int CUFFD_MFD_ALLOW_SEALING;
extern const unsigned int CUFFD_MFD_HUGETLB;
extern const int CUFFD_SEAL_SEAL;
extern const int CUFFD_SEAL_SHRINK;
extern const int CUFFD_SEAL_GROW;
extern const int CUFFD_SEAL_WRITE;
extern const int CUFFD_SEAL_FUTURE_WRITE;
extern const int CUFFD_MREMAP_MAYMOVE;
extern const int CUFFD_MREMAP_FIXED;
extern const int CUFFD_MREMAP_DONTUNMAP;
extern const int CUFFD_FALLOC_KEEP_SIZE;
extern const int CUFFD_FALLOC_PUNCH_HOLE;

/// Bytes in a base page.
size_t cuffd_page_size(void);
/// mmap(2): the address through `address`, which comes in as the hint or the fixed address.
int cuffd_mmap(uint64_t *address, size_t length, int protection, int flags, int fd, int64_t offset);
int cuffd_munmap(uint64_t address, size_t length);
int cuffd_mprotect(uint64_t address, size_t length, int protection);
int cuffd_madvise(uint64_t address, size_t length, int advice);
/// process_madvise(2) on another process, over one range; answers bytes advised.
ssize_t cuffd_process_madvise(int pidfd, uint64_t address, size_t length, int advice);
/// mremap(2): the new address through `new_address`, which comes in as the target of FIXED or DONTUNMAP.
int cuffd_mremap(uint64_t address, size_t length, size_t new_length, int flags, uint64_t *new_address);
/// mincore(2): a byte per page, bit 0 set where the page is in memory.
int cuffd_mincore(uint64_t address, size_t length, unsigned char *pages);
int cuffd_mlock(uint64_t address, size_t length);
int cuffd_munlock(uint64_t address, size_t length);

int cuffd_memfd_create(const char *name, unsigned int flags);
/// A guest_memfd of a virtual machine of its own, which can be mapped (cuffd_kvm.c): needs /dev/kvm, Linux 6.18.
int cuffd_guest_memfd(uint64_t size);
int cuffd_ftruncate(int fd, int64_t length);
int cuffd_fallocate(int fd, int mode, int64_t offset, int64_t length);
int cuffd_add_seals(int fd, int seals);
int cuffd_get_seals(int fd);

/// What fstat(2) and fstatfs(2) say of a file.
struct cuffd_file_status {
    uint64_t bytes;
    /// Units of 512 bytes.
    uint64_t blocks;
    uint64_t device;
    uint64_t inode;
    /// The huge page size on hugetlbfs, else the base page size.
    uint64_t page_size;
    /// S_ISREG, S_ISDIR and S_ISBLK.
    int is_regular;
    int is_directory;
    int is_block_device;
    /// A regular file of tmpfs (a memfd is one), of hugetlbfs, or of guest_memfd.
    int is_memory_file;
};
int cuffd_fstat(int fd, struct cuffd_file_status *status);

/// PAGEMAP_SCAN on a /proc/PID/pagemap descriptor: how many regions were written.
int cuffd_pagemap_scan(int pagemap, struct cuffd_pm_scan_arg *argument);

/// process_vm_readv(2) and process_vm_writev(2), one range on each side; answer bytes.
ssize_t cuffd_process_vm_read(pid_t pid, uint64_t remote, void *local, size_t length);
ssize_t cuffd_process_vm_write(pid_t pid, uint64_t remote, const void *local, size_t length);

// MARK: Processes (cuffd_process.c)

extern const int CUFFD_CAP_SYS_PTRACE;
extern const int CUFFD_CAP_SYS_ADMIN;

pid_t cuffd_getpid(void);
void cuffd_kill_self(void);
pid_t cuffd_gettid(void);
/// pidfd_open(2): readable when the process exits.
int cuffd_pidfd_open(pid_t pid);
int cuffd_pidfd_send_signal(int pidfd, int signal);
/// pidfd_getfd(2): a duplicate of another process' descriptor, close-on-exec.
int cuffd_pidfd_getfd(int pidfd, int number);
/// Whether this thread has a capability in its effective set: 0 or 1. The user namespace is not looked at.
int cuffd_has_capability(int capability);
/// uname(2): release and machine, each cut to the size given.
int cuffd_uname(char *release, size_t release_size, char *machine, size_t machine_size);

// MARK: Threads (cuffd_thread.c)

typedef uint64_t cuffd_thread_t;

/// Room for 8192 processors, the most that Linux is built for.
enum { CUFFD_AFFINITY_WORDS = 128 };

/// A thread with every signal blocked that others can send it, named `name` (cut to 15 bytes). `stack_size` 0: the default.
int cuffd_thread_create(
    cuffd_thread_t *thread, const char *name, size_t stack_size, void (*body)(void *), void *argument);
/// Waits for the thread's end. Negative time: no limit; -ETIMEDOUT when the time is over.
int cuffd_thread_join(cuffd_thread_t thread, int milliseconds);
int cuffd_thread_detach(cuffd_thread_t thread);
/// Keeps the calling thread on the processors whose bits are set.
int cuffd_set_affinity(const uint64_t mask[CUFFD_AFFINITY_WORDS]);
/// The processors that a thread may run on; 0 for the calling one.
int cuffd_get_affinity(int thread, uint64_t mask[CUFFD_AFFINITY_WORDS]);
/// The processor that the calling thread is on.
int cuffd_current_cpu(void);
int cuffd_sched_yield(void);
/// Waits while a word has a value: 0 when woken (or for no reason), -EAGAIN when it has another value, -ETIMEDOUT.
/// Negative time: no limit. futex(2), within this process.
int cuffd_futex_wait(uint32_t *word, uint32_t value, int64_t nanoseconds);
/// Wakes up to `count` threads that wait on a word.
int cuffd_futex_wake(uint32_t *word, int count);
/// A lock for many readers or one writer, whose readers let a waiting writer go first; NULL without memory. The more parts, a
/// power of two, the seldomer readers wait for each other's processor, and the longer a writer takes.
struct cuffd_rwlock *cuffd_rwlock_create(uint32_t parts);
void cuffd_rwlock_destroy(struct cuffd_rwlock *lock);
void cuffd_rwlock_read(struct cuffd_rwlock *lock);
/// On the thread that reads.
void cuffd_rwlock_end_reading(struct cuffd_rwlock *lock);
/// Who writes again and again keeps readers out for as long, unless it lets in those that have waited for the last writer.
void cuffd_rwlock_write(struct cuffd_rwlock *lock, bool lets_readers_in);
void cuffd_rwlock_end_writing(struct cuffd_rwlock *lock);
/// Nanoseconds of CLOCK_MONOTONIC.
uint64_t cuffd_monotonic_nanoseconds(void);

// MARK: Whose memory a range is (cuffd_holding.c)

/// Descriptors of one process' memory have one place. Place 0 is this process' own.
enum { CUFFD_HOLDING_PLACES = 64 };

/// Before the first of the others; in the child of a fork they begin anew.
int cuffd_holding_prepare(void);
/// Until cuffd_holding_end, nobody in this process lets go of registered memory. Signals that others can send are blocked.
void cuffd_holding_ask(uint32_t place);
/// Until cuffd_holding_end, nobody in this process asks. Signals that others can send are blocked.
void cuffd_holding_let_go(uint32_t place);
void cuffd_holding_end(uint32_t place);

// MARK: Faults as signals (cuffd_fault_signal.c)

/// What became of a fault.
enum {
    /// Nobody here has this address.
    CUFFD_FAULT_UNCLAIMED,
    /// The thread goes on, or faults anew.
    CUFFD_FAULT_SERVED,
    /// It is a mistake of the program's: what SIGBUS did before happens.
    CUFFD_FAULT_REFUSED,
};

/// Serves a fault in the thread that has it, in a signal handler: every signal that others can send is blocked.
typedef int (*cuffd_fault_server)(uint64_t address);

/// Handles SIGBUS from now on; once for the process, further calls change nothing. What `serve` does not claim goes where it
/// went before. `forget` is called in the child of a fork.
int cuffd_fault_signal_install(cuffd_fault_server serve, void (*forget)(void));
/// Blocks every signal that others can send to the calling thread, unless they are, and cancellation: calls nest.
uint64_t cuffd_signals_block(void);
/// Undoes cuffd_signals_block, which returned `mask`.
void cuffd_signals_restore(uint64_t mask);
/// Writes to the standard error, as far as that takes it.
void cuffd_complain(const void *text, size_t count);
/// As if a fault of the calling thread were served from here to there: SIGBUS that an instruction raises ends the process unless it
/// is served, because a handler of the program's could jump.
void cuffd_fault_signal_begin_serving(void);
void cuffd_fault_signal_end_serving(void);
/// Says that memory is about to be given up: a fault that nobody claims from now on may have been somebody's.
void cuffd_fault_signal_note_change(void);
/// Tells the calling thread from every other that lives. No system call.
static inline uintptr_t cuffd_thread_token(void) { return (uintptr_t)__builtin_thread_pointer(); }
/// 0 if the calling thread certainly has no other fault that is being served. No system call.
int cuffd_fault_signal_may_be_nested(void);

// MARK: Unix sockets (cuffd_socket.c)

enum : uint64_t {
    /// The most descriptors that the kernel passes in one message.
    CUFFD_MAX_DESCRIPTORS = 253,
};

/// What SO_PEERCRED says of a connected peer.
struct cuffd_peer {
    pid_t pid;
    uint32_t uid;
    uint32_t gid;
};

/// A file, whatever it is called.
struct cuffd_file_identity {
    uint64_t device;
    uint64_t inode;
};

/// A connected pair of stream sockets, close-on-exec.
int cuffd_socketpair(int sockets[2]);
/// A listening stream socket bound to `path`, close-on-exec: once there is the path, clients can connect. Its permissions are
/// `mode` if that is not negative, else what the umask leaves. -ENAMETOOLONG if the path does not fit, -EADDRINUSE if it is
/// there already.
int cuffd_unix_listen(const char *path, int backlog, int64_t mode);
/// Removes sockets that `cuffd_unix_listen` has bound beside `path` and that nobody has any more: whoever has made them was
/// killed before they got the path.
void cuffd_unix_remove_leftovers(const char *path);
/// chmod(2) of a socket, never of what a symbolic link names; -ENOTSOCK for every other file.
int cuffd_unix_set_mode(const char *path, uint32_t mode);
/// A stream socket connected to `path`, close-on-exec.
int cuffd_unix_connect(const char *path);
/// Whether somebody has the stream socket at `path`, without connecting to it: 0, or -ECONNREFUSED if nobody has it any more.
int cuffd_unix_probe(const char *path);
/// Which socket is at `path`; -ENOTSOCK for every other file.
int cuffd_unix_identify(const char *path, struct cuffd_file_identity *identity);
/// unlink(2) of a socket, and of no other one that has taken its path; -ENOTSOCK for every other file.
int cuffd_unix_remove(const char *path, const struct cuffd_file_identity *identity);
/// Ends every sending, and connecting, with an error after `milliseconds`.
int cuffd_limit_sending(int socket, int milliseconds);
/// accept4(2), close-on-exec.
int cuffd_accept(int listener);
/// shutdown(2) of reading: what has arrived can be taken, and nothing more arrives. A listening socket refuses clients.
int cuffd_refuse_more(int socket);
/// poll(2): 1 after cuffd_refuse_more, by whoever has the socket, else 0.
int cuffd_refuses_more(int socket);
/// Lets every message bring its sender: a pidfd since Linux 6.5, credentials before.
int cuffd_pass_sender(int socket);
/// A stream socket connected to a numeric IPv4 or IPv6 address, close-on-exec; connecting and every sending end with an
/// error after `milliseconds`. -EINVAL for what is no address.
int cuffd_tcp_connect(const char *address, uint16_t port, int milliseconds);
/// recv(2).
ssize_t cuffd_receive(int socket, void *bytes, size_t count);
int cuffd_peer_credentials(int socket, struct cuffd_peer *peer);
/// SO_PEERPIDFD: a pidfd of a connected peer, close-on-exec; -ENOPROTOOPT before Linux 6.5.
int cuffd_peer_pidfd(int socket);
/// sendmsg(2) with SCM_RIGHTS, without SIGPIPE; answers bytes of payload sent, of which there must be at least one.
ssize_t cuffd_send_descriptors(
    int socket, const void *bytes, size_t count, const int *descriptors, size_t descriptor_count);
/// What came with a message beside its payload. Every descriptor in it is the caller's to close.
struct cuffd_control {
    /// SCM_RIGHTS.
    int descriptors[CUFFD_MAX_DESCRIPTORS];
    int count;
    /// SCM_PIDFD, which the socket option SO_PASSPIDFD brings; -1 without it.
    int pidfd;
    /// The sender's process id, which SO_PASSCRED brings; 0 without it.
    int pid;
    /// 1 if the kernel discarded some (MSG_CTRUNC).
    int truncated;
};

/// recvmsg(2) with MSG_CMSG_CLOEXEC; answers bytes of payload, 0 at the end of the stream.
ssize_t cuffd_receive_descriptors(int socket, void *bytes, size_t count, struct cuffd_control *control);
/// Reads the control messages of one message, `length` bytes, aligned as struct cmsghdr.
void cuffd_parse_control(void *messages, size_t length, struct cuffd_control *control);

#endif
