#ifndef CSS_STRESS_H
#define CSS_STRESS_H

#include <stdint.h>

// A page under stress begins with a lock and a counter, which any number of threads use.
struct css_stressed_page {
    uint64_t lock;
    uint64_t counter;
};

// Takes the page's lock, compares its counter with `*right`, adds 1 to both and lets go.
// 0, or 1 when they differed: then `*seen` is what the page held. Blocks wherever the page faults.
int css_stress_bump(struct css_stressed_page *page, uint64_t *right, uint64_t *seen);

#endif
