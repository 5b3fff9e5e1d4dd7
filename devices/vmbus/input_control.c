/* SPDX-License-Identifier: MIT */
#include "devices/vmbus/input_control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/vmbus/keyboard.h"
#include "devices/vmbus/keymap.h"
#include "devices/vmbus/mouse.h"
#include "vmm/control.h"
#include "vmm/log.h"
#include "vmm/vm.h"

#define TEXT_MAX 4096 /* characters of one command: 40 seconds */

static void typed(void *opaque, int error)
{
	if (error)
		control_fail(opaque, "the guest has closed the keyboard");
	else
		control_answer(opaque, NULL);
}

static void type_strokes(struct control_request *request, struct vm *vm, const struct keystroke *strokes, size_t count)
{
	int ret = vm->paused ? -EHOSTDOWN : keyboard_type(vm, strokes, count, typed, request);

	if (ret)
		control_fail(request, "%s",
			     ret == -EHOSTDOWN	? "the machine is paused"
			     : ret == -ENOTCONN ? "the guest does not use the keyboard"
			     : ret == -EBUSY	? "another text is being typed"
						: strerror(-ret));
}

static void run_type(struct control_request *request, void *opaque)
{
	const char *text = control_string(request, "text", "");
	size_t length = strlen(text), count = 0;
	struct keystroke *strokes;

	if (!length || length > TEXT_MAX) {
		control_fail(request, "a text has 1 to %d characters", TEXT_MAX);
		return;
	}
	strokes = malloc((length + 1) * KEYMAP_STROKES_MAX * sizeof(*strokes));
	if (!strokes) {
		control_fail(request, "out of memory");
		return;
	}
	for (size_t i = 0, n; i < length; i++, count += n) {
		n = keymap_character(text[i], &strokes[count]);
		if (!n) {
			control_fail(request, "character %zu is on no key of a US keyboard", i + 1);
			free(strokes);
			return;
		}
	}
	if (control_bool(request, "enter", false))
		count += keymap_character('\n', &strokes[count]);
	type_strokes(request, opaque, strokes, count);
	free(strokes);
}

static void run_key(struct control_request *request, void *opaque)
{
	struct keystroke strokes[KEYMAP_CHORD_MAX];
	const char *keys = control_string(request, "keys", "");
	size_t count = keymap_chord(keys, strokes);

	if (count)
		type_strokes(request, opaque, strokes, count);
	else
		control_fail(request, "'%s' names no keys, as ctrl+alt+delete or f8 does", keys);
}

static void run_mouse(struct control_request *request, void *opaque)
{
	static const char *const names[] = {
		[MOUSE_LEFT] = "left", [MOUSE_RIGHT] = "right", [MOUSE_MIDDLE] = "middle"
	};
	struct vm *vm = opaque;
	const char *click = control_string(request, "click", NULL);
	int64_t x = control_number(request, "x", -1), y = control_number(request, "y", -1);
	uint8_t button = 0;
	int ret;

	if (x < 0 || x > MOUSE_MAX || y < 0 || y > MOUSE_MAX) {
		control_fail(request, "x and y are from 0 to %d", MOUSE_MAX);
		return;
	}
	for (uint8_t i = MOUSE_LEFT; click && i <= MOUSE_MIDDLE; i <<= 1)
		if (!strcmp(click, names[i]))
			button = i;
	ret = vm->paused ? -EHOSTDOWN : mouse_report(vm, (uint16_t)x, (uint16_t)y, button);
	if (!ret && button)
		ret = mouse_report(vm, (uint16_t)x, (uint16_t)y, 0);
	if (ret)
		control_fail(request, "%s",
			     ret == -EHOSTDOWN	? "the machine is paused"
			     : ret == -ENOTCONN ? "the guest does not use the mouse"
						: "the guest does not read what the mouse sends");
	else
		control_answer(request, NULL);
}

static const struct control_command commands[] = {
	{ .name = "type",
	  .help = "types a text on the guest's keyboard, which should have the US layout",
	  .run = run_type,
	  .arguments = { { .name = "text", .required = true, .help = "what to type" },
			 { .name = "enter", .kind = CONTROL_BOOL, .help = "and the enter key after it (false)" } } },
	{ .name = "key",
	  .help = "presses keys together",
	  .run = run_key,
	  .arguments = { { .name = "keys",
			   .required = true,
			   .help = "such as enter, f8, alt+tab, ctrl+alt+delete" } } },
	{ .name = "mouse",
	  .help = "moves the pointer, and clicks",
	  .run = run_mouse,
	  .arguments = { { .name = "x", .kind = CONTROL_NUMBER, .required = true, .help = "0 (left) to 32767" },
			 { .name = "y", .kind = CONTROL_NUMBER, .required = true, .help = "0 (top) to 32767" },
			 { .name = "click",
			   .values = "left|right|middle",
			   .help = "the button to press and let go" } } },
};

int input_create(struct vm *vm)
{
	int ret;

	if (!vm->vmbus || !vm->control)
		return 0;
	ret = keyboard_create(vm);
	if (!ret)
		ret = mouse_create(vm);
	if (ret)
		return ret;
	ret = control_add(vm->control, commands, sizeof(commands) / sizeof(commands[0]), vm);
	if (ret)
		log_line("--control: %s", strerror(-ret));
	return ret;
}
