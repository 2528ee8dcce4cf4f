#ifndef CSS_SMAPS_H
#define CSS_SMAPS_H

#include <stddef.h>
#include <stdint.h>

// The lines of /proc/self/smaps about the mapping that holds `address`: how many bytes were written to `text`,
// 0 where no mapping holds it, or -errno. The file is long, and reading it in Swift slow.
long css_smaps_of(uintptr_t address, char *text, size_t size);

#endif
