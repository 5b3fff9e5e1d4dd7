/* SPDX-License-Identifier: MIT */
#include "devices/vmbus/keymap.h"

#include <string.h>

#define SHIFT 0x2a

/* The rows of the keyboard: their keys have successive codes. */
static const struct {
	const char *plain, *shifted;
	uint8_t first;
} rows[] = {
	{ "1234567890-=", "!@#$%^&*()_+", 0x02 },
	{ "qwertyuiop[]", "QWERTYUIOP{}", 0x10 },
	{ "asdfghjkl;'`", "ASDFGHJKL:\"~", 0x1e },
	{ "\\zxcvbnm,./", "|ZXCVBNM<>?", 0x2b },
	{ "\t", "", 0x0f },
	{ "\n", "", 0x1c },
	{ " ", "", 0x39 },
};

static const struct {
	const char *name;
	uint8_t make;
	bool e0;
} names[] = {
	{ "esc", 0x01, false },	     { "backspace", 0x0e, false }, { "tab", 0x0f, false },   { "enter", 0x1c, false },
	{ "ctrl", 0x1d, false },     { "shift", SHIFT, false },	   { "alt", 0x38, false },   { "space", 0x39, false },
	{ "capslock", 0x3a, false }, { "f1", 0x3b, false },	   { "f2", 0x3c, false },    { "f3", 0x3d, false },
	{ "f4", 0x3e, false },	     { "f5", 0x3f, false },	   { "f6", 0x40, false },    { "f7", 0x41, false },
	{ "f8", 0x42, false },	     { "f9", 0x43, false },	   { "f10", 0x44, false },   { "f11", 0x57, false },
	{ "f12", 0x58, false },	     { "home", 0x47, true },	   { "up", 0x48, true },     { "pageup", 0x49, true },
	{ "left", 0x4b, true },	     { "right", 0x4d, true },	   { "end", 0x4f, true },    { "down", 0x50, true },
	{ "pagedown", 0x51, true },  { "insert", 0x52, true },	   { "delete", 0x53, true }, { "win", 0x5b, true },
	{ "menu", 0x5d, true },
};

/* The code of the key that has this character, 0 if none has. */
static uint8_t find_key(char c, bool *shifted)
{
	for (size_t i = 0; c && i < sizeof(rows) / sizeof(rows[0]); i++) {
		const char *at = strchr(rows[i].plain, c);

		*shifted = !at;
		if (!at)
			at = strchr(rows[i].shifted, c);
		if (at)
			return (uint8_t)(rows[i].first + (at - (*shifted ? rows[i].shifted : rows[i].plain)));
	}
	return 0;
}

size_t keymap_character(char c, struct keystroke strokes[KEYMAP_STROKES_MAX])
{
	bool shifted;
	uint8_t make = find_key(c, &shifted);
	size_t n = 0;

	if (!make)
		return 0;
	if (shifted)
		strokes[n++] = (struct keystroke){ .make = SHIFT };
	strokes[n++] = (struct keystroke){ .make = make };
	strokes[n++] = (struct keystroke){ .make = make, .release = true };
	if (shifted)
		strokes[n++] = (struct keystroke){ .make = SHIFT, .release = true };
	strokes[n - 1].pause = true;
	return n;
}

static bool find_name(const char *text, size_t length, struct keystroke *down)
{
	bool shifted = false;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strlen(names[i].name) != length || memcmp(names[i].name, text, length) != 0)
			continue;
		*down = (struct keystroke){ .make = names[i].make, .e0 = names[i].e0 };
		return true;
	}
	*down = (struct keystroke){ .make = length == 1 ? find_key(*text, &shifted) : 0 };
	return down->make && !shifted;
}

size_t keymap_chord(const char *text, struct keystroke strokes[KEYMAP_CHORD_MAX])
{
	size_t keys = 0, n;

	for (bool more = true; more; keys++) {
		size_t length = strcspn(text, "+");

		if (keys == KEYMAP_CHORD_MAX / 2 || !find_name(text, length, &strokes[keys]))
			return 0;
		more = text[length];
		text += length + 1;
	}
	n = keys;
	while (keys) {
		strokes[n] = strokes[--keys];
		strokes[n++].release = true;
	}
	strokes[n - 1].pause = true;
	return n;
}
