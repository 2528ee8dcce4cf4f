#ifndef CSS_LIMITS_H
#define CSS_LIMITS_H

// The exit code of a program that cannot run within the limits of its process: what sysexits.h calls EX_OSERR.
enum { css_cannot_start = 71 };

// The name of a system call that every case needs and that a filter refuses; NULL if there is none. The errno that it
// answers is in `error`.
const char *css_filtered_call(int *error);

#endif
