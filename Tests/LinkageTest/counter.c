// Preloaded into a program, counts its allocations and reference counting, and prints the counts at its end.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>

static atomic_long allocations, retains, releases;

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

void *malloc(size_t size) {
    allocations++;
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    allocations++;
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size) {
    allocations++;
    return __libc_realloc(old, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
    allocations++;
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size) {
    allocations++;
    *memory = __libc_memalign(alignment, size);
    return *memory == NULL ? 12 : 0;
}

static void *(*real_retain)(void *);
static void (*real_release)(void *);

__attribute__((constructor)) static void find(void) {
    real_retain = dlsym(RTLD_NEXT, "swift_retain");
    real_release = dlsym(RTLD_NEXT, "swift_release");
}

void *swift_retain(void *object) {
    retains++;
    return real_retain(object);
}

void swift_release(void *object) {
    releases++;
    real_release(object);
}

__attribute__((destructor)) static void report(void) {
    long counts[] = {allocations, retains, releases};
    fprintf(stderr, "allocations %ld retains %ld releases %ld\n", counts[0], counts[1], counts[2]);
}
