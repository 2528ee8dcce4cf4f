// Whose memory a range is takes two calls to ask, the second of which registers: nobody here may let go of it between them.
#define _GNU_SOURCE
#include "cuffd_calls.h"

#include <pthread.h>

static pthread_rwlock_t order = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;

// In the child of a fork, which has none of the threads that had it.
static void renew(void) { order = (pthread_rwlock_t)PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP; }

static int prepared;

static void prepare(void) { prepared = -pthread_atfork(NULL, NULL, renew); }

int cuffd_holding_prepare(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, prepare);
    return prepared;
}

void cuffd_holding_ask(void) { pthread_rwlock_rdlock(&order); }

void cuffd_holding_let_go(void) { pthread_rwlock_wrlock(&order); }

void cuffd_holding_end(void) { pthread_rwlock_unlock(&order); }
