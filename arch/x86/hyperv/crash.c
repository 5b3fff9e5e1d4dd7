/* SPDX-License-Identifier: MIT */
/* A guest that panicked says so by the crash registers (TLFS 2.4.4, and Linux hyperv_report_panic_msg()). */
#include <string.h>

#include "arch/x86/hyperv/internal.h"
#include "vmm/log.h"
#include "vmm/vm.h"

#define LINE_MAX 200 /* characters; longer ones are broken */

/* The text is the guest's: only printable ASCII gets to a terminal. */
static size_t take_line(const uint8_t *text, size_t size, char line[LINE_MAX + 1])
{
	size_t used = 0, at = 0;

	while (at < size && used < LINE_MAX && text[at] && text[at] != '\n') {
		uint8_t c = text[at++];

		if (c == '\r')
			continue;
		line[used++] = (char)(c == '\t' ? ' ' : c < ' ' || c > '~' ? '?' : c);
	}
	line[used] = '\0';
	if (at < size && text[at] == '\n')
		at++;
	return at;
}

static void print_text(const uint8_t *text, size_t size)
{
	char line[LINE_MAX + 1];
	size_t at = 0;

	while (at < size && text[at]) {
		at += take_line(text + at, size - at, line);
		log_line("  guest: %s", line);
	}
}

static void print_message(const struct hv_partition *partition, uint64_t gpa, uint64_t size)
{
	uint8_t text[HV_PAGE];
	const void *from;

	if (size > sizeof(text))
		size = sizeof(text);
	from = ram_ptr(&partition->vm->memory, gpa, size);
	if (!from)
		return;
	memcpy(text, from, size);
	print_text(text, size);
}

/* Windows writes the code of the bug check and its four parameters; what Linux writes first is no such code. */
void hv_crashed(struct hv_vp *vp, const uint64_t p[HV_CRASH_PARAMETERS], bool message)
{
	struct hv_partition *partition = vp->partition;
	const bool windows = HV_OS_VENDOR(partition->backend->guest_os_id(vp)) == HV_OS_VENDOR_WINDOWS;

	log_line("the guest has crashed: %s 0x%llx%s 0x%llx 0x%llx 0x%llx 0x%llx", windows ? "bug check" : "parameters",
		 (unsigned long long)p[0], windows ? ", parameters" : "", (unsigned long long)p[1],
		 (unsigned long long)p[2], (unsigned long long)p[3], (unsigned long long)p[4]);
	if (message)
		print_message(partition, p[3], p[4]);
	vm_exit(partition->vm, STATUS_PANICKED);
}
