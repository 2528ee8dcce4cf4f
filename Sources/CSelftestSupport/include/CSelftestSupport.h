#ifndef CSELFTESTSUPPORT_H
#define CSELFTESTSUPPORT_H

// What the selftest cannot do in Swift: survive a SIGBUS, run a forked child, pin pages, and start and end processes.
// Functions answer 0 or a value on success and -errno on failure, unless they say otherwise.

#include "css_children.h"
#include "css_filesystem.h"
#include "css_guard.h"
#include "css_kernel_access.h"
#include "css_limits.h"
#include "css_numa.h"
#include "css_pattern.h"
#include "css_pin.h"
#include "css_privilege.h"
#include "css_process.h"
#include "css_ring.h"
#include "css_stress.h"
#include "css_signals.h"
#include "css_smaps.h"
#include "css_special_memory.h"

#endif
