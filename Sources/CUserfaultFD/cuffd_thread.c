// Threads that belong to no runtime: handlers must not run where a page fault could block a thread pool.
#define _GNU_SOURCE
#include "cuffd_answer.h"
#include "cuffd_calls.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

_Static_assert(sizeof(pthread_t) == sizeof(cuffd_thread_t), "pthread_t fits a word");

struct start {
    void (*body)(void *);
    void *argument;
    char name[16];
};

static void *run(void *opaque) {
    struct start start = *(struct start *)opaque;
    free(opaque);
    // They are blocked already; for whoever asks.
    uint64_t mask = 0;
    cuffd_signals_block(&mask);
    // Containers may forbid naming; a thread without a name works as well.
    (void)pthread_setname_np(pthread_self(), start.name);
    start.body(start.argument);
    return NULL;
}

int cuffd_thread_create(
    cuffd_thread_t *thread, const char *name, size_t stack_size, void (*body)(void *), void *argument) {
    struct start *start = malloc(sizeof *start);
    if (start == NULL) return -ENOMEM;
    *start = (struct start){.body = body, .argument = argument};
    strncpy(start->name, name, sizeof start->name - 1);

    pthread_attr_t attributes;
    int error = pthread_attr_init(&attributes);
    if (error == 0 && stack_size != 0) error = pthread_attr_setstacksize(&attributes, stack_size);

    // The mask is inherited, so the new thread never runs a handler of the program it serves.
    uint64_t mask = 0;
    cuffd_signals_block(&mask);
    pthread_t created;
    if (error == 0) error = pthread_create(&created, &attributes, run, start);
    cuffd_signals_restore(mask);
    pthread_attr_destroy(&attributes);

    if (error != 0) {
        free(start);
        return -error;
    }
    *thread = (cuffd_thread_t)created;
    return 0;
}

int cuffd_thread_join(cuffd_thread_t thread, int milliseconds) {
    if (milliseconds < 0) return -pthread_join((pthread_t)thread, NULL);
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += milliseconds / 1000;
    deadline.tv_nsec += (milliseconds % 1000) * 1000000L;
    if (deadline.tv_nsec >= 1000000000L) {
        deadline.tv_sec += 1;
        deadline.tv_nsec -= 1000000000L;
    }
    // Not pthread_clockjoin_np, which the thread sanitizer does not know.
    return -pthread_timedjoin_np((pthread_t)thread, NULL, &deadline);
}

int cuffd_thread_detach(cuffd_thread_t thread) { return -pthread_detach((pthread_t)thread); }

int cuffd_set_affinity(const uint64_t mask[CUFFD_AFFINITY_WORDS]) {
    return CUFFD_ANSWER(syscall(SYS_sched_setaffinity, 0, CUFFD_AFFINITY_WORDS * sizeof *mask, mask));
}

int cuffd_get_affinity(int thread, uint64_t mask[CUFFD_AFFINITY_WORDS]) {
    // The kernel writes as many bytes as it has processors for.
    memset(mask, 0, CUFFD_AFFINITY_WORDS * sizeof *mask);
    int answer = CUFFD_ANSWER(syscall(SYS_sched_getaffinity, thread, CUFFD_AFFINITY_WORDS * sizeof *mask, mask));
    return answer < 0 ? answer : 0;
}

int cuffd_current_cpu(void) { return CUFFD_ANSWER(sched_getcpu()); }

int cuffd_sched_yield(void) { return CUFFD_ANSWER(sched_yield()); }

int cuffd_futex_wait(uint32_t *word, uint32_t value, int64_t nanoseconds) {
    struct timespec limit = {.tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000};
    return (int)CUFFD_ANSWER(
        syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, nanoseconds < 0 ? NULL : &limit, NULL, 0));
}

int cuffd_futex_wake(uint32_t *word, int count) {
    return (int)CUFFD_ANSWER(syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0));
}

struct cuffd_rwlock {
    pthread_rwlock_t lock;
};

struct cuffd_rwlock *cuffd_rwlock_create(void) {
    struct cuffd_rwlock *created = malloc(sizeof *created);
    if (created == NULL) return NULL;
    pthread_rwlockattr_t attributes;
    pthread_rwlockattr_init(&attributes);
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&created->lock, &attributes);
    pthread_rwlockattr_destroy(&attributes);
    return created;
}

void cuffd_rwlock_destroy(struct cuffd_rwlock *lock) {
    pthread_rwlock_destroy(&lock->lock);
    free(lock);
}

void cuffd_rwlock_read(struct cuffd_rwlock *lock) { pthread_rwlock_rdlock(&lock->lock); }

void cuffd_rwlock_write(struct cuffd_rwlock *lock) { pthread_rwlock_wrlock(&lock->lock); }

void cuffd_rwlock_unlock(struct cuffd_rwlock *lock) { pthread_rwlock_unlock(&lock->lock); }

uint64_t cuffd_monotonic_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
