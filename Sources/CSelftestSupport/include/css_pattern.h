#ifndef CSS_PATTERN_H
#define CSS_PATTERN_H

#include <stddef.h>
#include <stdint.h>

// Loops over whole huge pages, which a debug build of Swift does fifty times slower.

// Makes word i of `words` equal to first + i.
void css_fill_counting(uint64_t *words, size_t count, uint64_t first);

// Answers the first i for which word i differs from first + i, or `count`.
size_t css_first_not_counting(const uint64_t *words, size_t count, uint64_t first);

// Answers the first i for which word i is not zero, or `count`.
size_t css_first_not_zero(const uint64_t *words, size_t count);

#endif
