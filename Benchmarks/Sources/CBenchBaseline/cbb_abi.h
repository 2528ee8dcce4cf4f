// The kernel's ABI: the declarations of the library's C layer, and none of its functions.
#ifndef CBB_ABI_H
#define CBB_ABI_H

#include "../../../Sources/CUserfaultFD/include/cuffd_abi.h"

#endif
