#include "CBenchBaseline.h"

#include <malloc.h>
#include <pthread.h>
#include <time.h>

uint64_t cbb_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void cbb_touch(
    uint64_t base, size_t pages, size_t page_size, const uint32_t *order, int writes, uint32_t *latencies) {
    for (size_t i = 0; i < pages; i++) {
        volatile unsigned char *page = (unsigned char *)(base + (order != NULL ? order[i] : i) * page_size);
        uint64_t start = latencies != NULL ? cbb_now() : 0;
        if (writes)
            *page = 1;
        else
            (void)*page;
        if (latencies != NULL) latencies[i] = (uint32_t)(cbb_now() - start);
    }
}

uint64_t cbb_scan(uint64_t base, size_t bytes) {
    const volatile uint64_t *words = (const uint64_t *)base;
    uint64_t sum = 0;
    for (size_t i = 0; i < bytes / 8; i += 8) sum += words[i];
    return sum;
}

static void *read_byte(void *byte) {
    (void)*(volatile unsigned char *)byte;
    return NULL;
}

int cbb_reader_start(uint64_t *thread, uint64_t address) {
    pthread_t reader;
    int error = pthread_create(&reader, NULL, read_byte, (void *)address);
    *thread = (uint64_t)reader;
    return error;
}

void cbb_reader_join(uint64_t thread) { pthread_join((pthread_t)thread, NULL); }

void cbb_trim(void) { malloc_trim(0); }
