/* SPDX-License-Identifier: MIT */
/*
 * Text and names of keys, as what an AT keyboard with the United States' layout sends: scan codes of set 1.
 */
#ifndef DEVICES_VMBUS_KEYMAP_H
#define DEVICES_VMBUS_KEYMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct keystroke {
	uint8_t make;
	bool release, e0;
	bool pause; /* the last one of a character: time for the guest to take it */
};

#define KEYMAP_STROKES_MAX 4  /* a character takes: shift and key, down and up */
#define KEYMAP_CHORD_MAX   16 /* strokes of a chord: eight keys */

/* The strokes of one character: ASCII's printable ones, tab and newline. How many, 0 if no key has it. */
size_t keymap_character(char c, struct keystroke strokes[KEYMAP_STROKES_MAX]);

/*
 * The strokes of keys held down together, as "ctrl+alt+delete": all go down in this order, and up in the other. A key
 * is a character or a name. How many strokes; 0 if there is no such key, or too many are named.
 */
size_t keymap_chord(const char *text, struct keystroke strokes[KEYMAP_CHORD_MAX]);

#endif
