/* SPDX-License-Identifier: MIT */
#ifndef VMM_CHECKHOST_H
#define VMM_CHECKHOST_H

/* --check-host: prints what this host offers and what to do about what it lacks. 0 if guests can run, else 1. */
int check_host(void);

#endif
