// Threads that belong to no runtime: handlers must not run where a page fault could block a thread pool.
#define _GNU_SOURCE
#include "cuffd_answer.h"
#include "cuffd_calls.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
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
    cuffd_signals_block();
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
    uint64_t mask = cuffd_signals_block();
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

// Not a pthread_rwlock_t: all its readers write one word, and a fault takes it twice.
struct cuffd_rwlock {
    pthread_mutex_t writers;
    /// What readers wait for while a writer comes.
    _Atomic uint32_t writing;
    uint32_t parts;
    struct cuffd_rwlock_part {
        /// How many readers count here; what a writer waits for.
        _Alignas(64) _Atomic uint32_t readers;
    } part[];
};

enum { free_of_writers, has_writer, has_writer_and_waiters };

static _Atomic uint32_t *own_part(struct cuffd_rwlock *lock) {
    return &lock->part[(cuffd_thread_token() * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (lock->parts - 1)].readers;
}

struct cuffd_rwlock *cuffd_rwlock_create(uint32_t parts) {
    struct cuffd_rwlock *created = aligned_alloc(64, sizeof *created + parts * sizeof created->part[0]);
    if (created == NULL) return NULL;
    pthread_mutex_init(&created->writers, NULL);
    atomic_init(&created->writing, free_of_writers);
    created->parts = parts;
    for (uint32_t i = 0; i < parts; i++) atomic_init(&created->part[i].readers, 0);
    return created;
}

void cuffd_rwlock_destroy(struct cuffd_rwlock *lock) {
    pthread_mutex_destroy(&lock->writers);
    free(lock);
}

static void end_reading(struct cuffd_rwlock *lock, _Atomic uint32_t *readers) {
    // A writer that comes after this look sees that the reader is gone.
    if (atomic_fetch_sub(readers, 1) == 1 && atomic_load(&lock->writing) != free_of_writers)
        cuffd_futex_wake((uint32_t *)readers, 1);
}

static __attribute__((noinline)) void let_writer_go_first(struct cuffd_rwlock *lock, _Atomic uint32_t *readers) {
    do {
        end_reading(lock, readers);
        uint32_t seen = has_writer;
        if (atomic_compare_exchange_strong(&lock->writing, &seen, has_writer_and_waiters) || seen != free_of_writers)
            cuffd_futex_wait((uint32_t *)&lock->writing, has_writer_and_waiters, -1);
        atomic_fetch_add(readers, 1);
    } while (atomic_load(&lock->writing) != free_of_writers);
}

void cuffd_rwlock_read(struct cuffd_rwlock *lock) {
    _Atomic uint32_t *readers = own_part(lock);
    // Either a writer sees that the reader is there, or the reader sees the writer.
    atomic_fetch_add(readers, 1);
    if (atomic_load(&lock->writing) != free_of_writers) let_writer_go_first(lock, readers);
}

void cuffd_rwlock_end_reading(struct cuffd_rwlock *lock) { end_reading(lock, own_part(lock)); }

void cuffd_rwlock_write(struct cuffd_rwlock *lock) {
    pthread_mutex_lock(&lock->writers);
    atomic_store(&lock->writing, has_writer);
    for (uint32_t i = 0; i < lock->parts; i++) {
        uint32_t there;
        while ((there = atomic_load(&lock->part[i].readers)) != 0)
            cuffd_futex_wait((uint32_t *)&lock->part[i].readers, there, -1);
    }
}

void cuffd_rwlock_end_writing(struct cuffd_rwlock *lock) {
    if (atomic_exchange(&lock->writing, free_of_writers) == has_writer_and_waiters)
        cuffd_futex_wake((uint32_t *)&lock->writing, INT_MAX);
    pthread_mutex_unlock(&lock->writers);
}

uint64_t cuffd_monotonic_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
