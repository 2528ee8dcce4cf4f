#include "css_pattern.h"

void css_fill_counting(uint64_t *words, size_t count, uint64_t first) {
    for (size_t i = 0; i < count; i++) words[i] = first + i;
}

size_t css_first_not_counting(const uint64_t *words, size_t count, uint64_t first) {
    size_t i = 0;
    while (i < count && words[i] == first + i) i++;
    return i;
}

size_t css_first_not_zero(const uint64_t *words, size_t count) {
    size_t i = 0;
    while (i < count && words[i] == 0) i++;
    return i;
}
