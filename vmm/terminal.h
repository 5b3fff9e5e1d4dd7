/* SPDX-License-Identifier: MIT */
/* The controlling terminal in raw mode, and back on every way out, crashes included. */
#ifndef VMM_TERMINAL_H
#define VMM_TERMINAL_H

#include <stdbool.h>

/*
 * Puts standard input into raw mode if both ends of stdio are a terminal; false if they are not. From then on the
 * fatal signals restore it before they take their course. The saved settings belong to the process.
 */
bool terminal_raw(void);
bool terminal_is_raw(void);
void terminal_restore(void);

/*
 * Gives standard descriptors that were closed /dev/null: the next file opened would get their number, and the console's
 * data would go there.
 */
void terminal_fill_descriptors(void);

#endif
