// Threads that belong to no runtime: handlers must not run where a page fault could block a thread pool.
#define _GNU_SOURCE
#include "cuffd_answer.h"
#include "cuffd_calls.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
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
    /// Odd while a writer comes or is there; what readers wait for.
    _Atomic uint32_t turns;
    /// Readers that let a writer go first and are not in yet; what a writer waits for that lets them in.
    _Atomic uint32_t waiting;
    uint32_t parts;
    struct cuffd_rwlock_part {
        /// How many readers count here; what a writer waits for.
        _Alignas(64) _Atomic uint32_t readers;
    } part[];
};

static bool has_writer(uint32_t turn) { return turn & 1; }

static void await_zero(_Atomic uint32_t *word) {
    uint32_t seen;
    while ((seen = atomic_load(word)) != 0) cuffd_futex_wait((uint32_t *)word, seen, -1);
}

static _Atomic uint32_t *own_part(struct cuffd_rwlock *lock) {
    return &lock->part[(cuffd_thread_token() * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (lock->parts - 1)].readers;
}

struct cuffd_rwlock *cuffd_rwlock_create(uint32_t parts) {
    struct cuffd_rwlock *created = aligned_alloc(64, sizeof *created + parts * sizeof created->part[0]);
    if (created == NULL) return NULL;
    pthread_mutex_init(&created->writers, NULL);
    atomic_init(&created->turns, 0);
    atomic_init(&created->waiting, 0);
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
    if (atomic_fetch_sub(readers, 1) == 1 && has_writer(atomic_load(&lock->turns)))
        cuffd_futex_wake((uint32_t *)readers, 1);
}

static __attribute__((noinline)) void let_writer_go_first(struct cuffd_rwlock *lock, _Atomic uint32_t *readers) {
    bool is_in;
    do {
        atomic_fetch_add(&lock->waiting, 1);
        end_reading(lock, readers);
        uint32_t turn = atomic_load(&lock->turns);
        while (has_writer(turn) && atomic_load(&lock->turns) == turn)
            cuffd_futex_wait((uint32_t *)&lock->turns, turn, -1);
        atomic_fetch_add(readers, 1);
        // Before a writer may come that waits for this: it would be taken for one that has to go first.
        is_in = !has_writer(atomic_load(&lock->turns));
        if (atomic_fetch_sub(&lock->waiting, 1) == 1) cuffd_futex_wake((uint32_t *)&lock->waiting, 1);
    } while (!is_in);
}

void cuffd_rwlock_read(struct cuffd_rwlock *lock) {
    _Atomic uint32_t *readers = own_part(lock);
    // Either a writer sees that the reader is there, or the reader sees the writer.
    atomic_fetch_add(readers, 1);
    if (has_writer(atomic_load(&lock->turns))) let_writer_go_first(lock, readers);
}

void cuffd_rwlock_end_reading(struct cuffd_rwlock *lock) { end_reading(lock, own_part(lock)); }

void cuffd_rwlock_write(struct cuffd_rwlock *lock, bool lets_readers_in) {
    pthread_mutex_lock(&lock->writers);
    if (lets_readers_in) await_zero(&lock->waiting);
    atomic_fetch_add(&lock->turns, 1);
    for (uint32_t i = 0; i < lock->parts; i++) await_zero(&lock->part[i].readers);
}

void cuffd_rwlock_end_writing(struct cuffd_rwlock *lock) {
    atomic_fetch_add(&lock->turns, 1);
    if (atomic_load(&lock->waiting) != 0) cuffd_futex_wake((uint32_t *)&lock->turns, INT_MAX);
    pthread_mutex_unlock(&lock->writers);
}

uint64_t cuffd_monotonic_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
