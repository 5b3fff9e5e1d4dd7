/* SPDX-License-Identifier: MIT */
/*
 * A guest at the firmware configuration device: selects, reads bytes and gives DMA commands anywhere in a small RAM and
 * beyond. Items that cannot be written do not change, and what is read is what they hold.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "firmware/fw_cfg_core.h"

#define RAM_SIZE 8192u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char constant[] = "an item that nobody may write, of some length";

struct machine {
	struct fw_cfg_core core;
	uint8_t *ram;
	unsigned int selected, written;
};

static void *guest(void *opaque, uint64_t gpa, uint64_t len)
{
	struct machine *m = opaque;

	return gpa < RAM_SIZE && len <= RAM_SIZE - gpa ? m->ram + gpa : NULL;
}

static void on_selected(void *opaque)
{
	struct machine *m = opaque;

	m->selected++;
}

static void on_written(void *opaque)
{
	struct machine *m = opaque;

	m->written++;
}

static void fill(struct machine *m, int fd)
{
	int file;

	fw_cfg_core_init(&m->core, guest, m);
	assert(!fw_cfg_add(&m->core, 1, constant, sizeof(constant)));
	assert(!fw_cfg_add_number(&m->core, 5, 3, 2));
	if (fd >= 0)
		fw_cfg_add_fd(&m->core, 2, fd, 100000);
	file = fw_cfg_add_file(&m->core, "etc/one", NULL, 28);
	assert(file == FW_CFG_FIRST_FILE);
	m->core.items[file].written = on_written;
	m->core.items[file].opaque = m;
	file = fw_cfg_add_file(&m->core, "etc/two", constant, 9);
	m->core.items[file].selected = on_selected;
	m->core.items[file].opaque = m;
	assert(!fw_cfg_add_directory(&m->core));
}

/* What a transfer does to RAM is its own affair; that it does not leave it is ASan's to see. */
static void dma(struct machine *m, const uint8_t *in)
{
	static const uint32_t lengths[] = { 0, 1, 28, 100, RAM_SIZE, 1u << 20, (1u << 20) + 200, UINT32_MAX };
	uint32_t length = lengths[in[2] & 7];
	uint64_t command = (uint64_t)(in[1] & 3 ? in[1] * 31u : RAM_SIZE - in[1] / 16u);
	uint8_t bytes[16] = { 0, in[3] & 0x3f, 0, (uint8_t)(in[2] >> 3) };

	for (unsigned int i = 0; i < 4; i++)
		bytes[4 + i] = (uint8_t)(length >> (24 - 8 * i));
	bytes[14] = in[4];
	bytes[15] = in[3];
	if (in[4] == 0xff)
		memset(bytes + 8, 0xff, 7);
	if (command + 16 <= RAM_SIZE)
		memcpy(m->ram + command, bytes, 16);
	fw_cfg_dma(&m->core, command);
}

static void check(const struct machine *m)
{
	assert(!memcmp(m->core.items[1].data, constant, sizeof(constant)));
	assert(!memcmp(m->core.items[FW_CFG_FIRST_FILE + 1].data, constant, 9));
	assert(m->core.items[FW_CFG_FIRST_FILE].size == 28);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	struct machine m = { .ram = calloc(1, RAM_SIZE) };

	assert(m.ram);
	if (fd < 0) {
		char name[] = "/tmp/fuzz-fw-cfg.XXXXXX";

		fd = mkstemp(name);
		assert(fd >= 0 && !unlink(name) && write(fd, constant, sizeof(constant)) == sizeof(constant));
	}
	fill(&m, fd);
	for (size_t at = 0; at + 5 <= size && at < 2000; at += 5) {
		const uint8_t *in = data + at;

		if (in[0] & 1)
			dma(&m, in);
		else if (in[0] & 2)
			fw_cfg_select(&m.core, (uint16_t)(in[1] << 8 | in[2]));
		else if (in[0] == 4)
			fw_cfg_core_reset(&m.core);
		else
			(void)fw_cfg_read_byte(&m.core);
		check(&m);
	}
	fw_cfg_select(&m.core, 1);
	for (size_t i = 0; i < sizeof(constant) + 8; i++)
		assert(fw_cfg_read_byte(&m.core) == (i < sizeof(constant) ? (uint8_t)constant[i] : 0));
	fw_cfg_core_free(&m.core);
	free(m.ram);
	return 0;
}
