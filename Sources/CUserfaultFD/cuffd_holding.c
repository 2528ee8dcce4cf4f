// Whose memory a range is takes two calls to ask, the second of which registers: nobody here may let go of it between them.
#define _GNU_SOURCE
#include "cuffd_calls.h"

#include <pthread.h>

// Several, so that processes whose memory is served seldom wait for each other: letting go of much memory takes long.
static pthread_rwlock_t orders[CUFFD_HOLDING_PLACES];

// Also in the child of a fork, which has none of the threads that had them.
static void renew(void) {
    for (int i = 0; i < CUFFD_HOLDING_PLACES; i++)
        orders[i] = (pthread_rwlock_t)PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;
}

static int prepared;

static void prepare(void) {
    renew();
    prepared = -pthread_atfork(NULL, NULL, renew);
}

int cuffd_holding_prepare(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, prepare);
    return prepared;
}

void cuffd_holding_ask(uint32_t place) { pthread_rwlock_rdlock(&orders[place]); }

void cuffd_holding_let_go(uint32_t place) { pthread_rwlock_wrlock(&orders[place]); }

void cuffd_holding_end(uint32_t place) { pthread_rwlock_unlock(&orders[place]); }
