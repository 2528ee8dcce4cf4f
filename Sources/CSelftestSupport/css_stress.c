#include "css_stress.h"

#include <sched.h>

int css_stress_bump(struct css_stressed_page *page, uint64_t *right, uint64_t *seen) {
    while (__atomic_exchange_n(&page->lock, 1, __ATOMIC_ACQUIRE) != 0) sched_yield();
    *seen = page->counter;
    int differs = *seen != *right;
    page->counter = ++*right;
    __atomic_store_n(&page->lock, 0, __ATOMIC_RELEASE);
    return differs;
}
