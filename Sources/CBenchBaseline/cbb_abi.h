// The kernel's ABI: declarations only, none of the library's code.
#ifndef CBB_ABI_H
#define CBB_ABI_H

#include <cuffd_abi.h>

#endif
