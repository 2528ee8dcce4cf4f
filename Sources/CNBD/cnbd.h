// libnbd, as the machine has it.
#include <libnbd.h>
