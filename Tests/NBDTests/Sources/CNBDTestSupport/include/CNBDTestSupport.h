// What the tests need of the C library that Swift's module of it does not have.
#pragma once

/// Gives the calling thread, and those that it makes, a view of their own of what is mounted where.
int cnt_unshare_mounts(void);
