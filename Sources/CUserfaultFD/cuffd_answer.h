// How every call of this layer answers.
#ifndef CUFFD_ANSWER_H
#define CUFFD_ANSWER_H

#include <errno.h>

/// A system call's result, or -errno if it is negative.
#define CUFFD_ANSWER(call)                     \
    ({                                         \
        __typeof__(call) answer_ = (call);     \
        answer_ < 0 ? -(__typeof__(call))errno : answer_; \
    })

#endif
