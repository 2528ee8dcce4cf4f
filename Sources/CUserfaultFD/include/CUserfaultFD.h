// The kernel layer: the userfaultfd ABI and one C function per system call.
#ifndef CUSERFAULTFD_H
#define CUSERFAULTFD_H

#include "cuffd_abi.h"
#include "cuffd_calls.h"

#endif
