/* SPDX-License-Identifier: MIT */
#include "vmm/stats.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/bus.h"
#include "vmm/log.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

/* The value of a line "Key:   123 kB"; false if it is another line. */
static bool kib_line(const char *line, const char *key, uint64_t *value)
{
	size_t length = strlen(key);

	return !strncmp(line, key, length) && sscanf(line + length, " %" SCNu64, value) == 1;
}

int stats_memory(const struct vm *vm, struct memory_use *use)
{
	uint64_t start, end, value, peak = 0;
	uint64_t ram = (uintptr_t)vm->memory.reservation, ram_end = ram + vm->memory.reserved;
	bool in_ram = false;
	char line[512];
	FILE *f = fopen("/proc/self/smaps", "re");

	memset(use, 0, sizeof(*use));
	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &start, &end) == 2)
			in_ram = start >= ram && end <= ram_end;
		else if (kib_line(line, "Rss:", &value))
			*(in_ram ? &use->guest : &use->resident) += value;
		else if (!in_ram && kib_line(line, "Anonymous:", &value))
			use->anonymous += value;
	}
	fclose(f);
	f = fopen("/proc/self/status", "re");
	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f))
		if (kib_line(line, "VmHWM:", &value))
			peak = value;
	fclose(f);
	use->peak = peak > use->guest ? peak - use->guest : 0;
	return 0;
}

static json_t *number(uint64_t n)
{
	return json_integer((json_int_t)n);
}

static json_t *milliseconds(uint64_t ns)
{
	return json_real((double)ns / 1e6);
}

uint64_t stats_user_exits(const struct vm *vm)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < vm->nr_vcpus; i++)
		for (unsigned int r = 0; r < EXIT_REASONS; r++)
			sum += atomic_load(&vm->vcpus[i].exits[r]);
	return sum;
}

static void add_hits(json_t *devices, struct bus *bus, const struct vm *vm, bool pio)
{
	pthread_mutex_lock(&bus->lock);
	for (unsigned int id = 0; id < bus->next_id; id++) {
		const char *name = bus->by_id[id]->name;
		json_t *before = json_object_get(devices, name);
		uint64_t sum = before ? (uint64_t)json_integer_value(before) : 0;

		for (unsigned int i = 0; i < vm->nr_vcpus; i++)
			sum += atomic_load(&(pio ? vm->vcpus[i].pio_hits : vm->vcpus[i].mmio_hits)[id]);
		if (sum)
			json_object_set_new(devices, name, number(sum));
	}
	pthread_mutex_unlock(&bus->lock);
}

static json_t *vcpu_object(const struct vcpu *vcpu)
{
	json_t *object = json_object(), *exits = json_object();
	uint64_t other = 0;

	for (unsigned int r = 0; r < EXIT_REASONS; r++) {
		uint64_t n = atomic_load(&vcpu->exits[r]);

		if (n && vcpu_exit_name(r))
			json_object_set_new(exits, vcpu_exit_name(r), number(n));
		else
			other += n;
	}
	if (other)
		json_object_set_new(exits, "other", number(other));
	json_object_set_new(object, "exits", exits);
	json_object_set_new(object, "interrupted", number(atomic_load(&vcpu->interrupted)));
	json_object_set_new(object, "unclaimed_accesses", number(atomic_load(&vcpu->unclaimed)));
	return object;
}

static json_t *post_array(const struct vm *vm)
{
	unsigned int count = atomic_load(&vm->post_count);
	json_t *array = json_array();

	for (unsigned int i = 0; i < count && i < POST_MARKS; i++) {
		uint64_t ns = atomic_load_explicit(&vm->post[i].ns, memory_order_acquire);
		json_t *mark;

		if (!ns) /* counted, and not written yet */
			continue;
		mark = json_object();
		json_object_set_new(mark, "code", number(vm->post[i].code));
		json_object_set_new(mark, "ms", milliseconds(ns));
		json_array_append_new(array, mark);
	}
	return array;
}

static uint64_t coalesced_writes(struct vm *vm)
{
	uint64_t n;

	pthread_mutex_lock(&vm->coalesce.lock);
	n = vm->coalesce.drained;
	pthread_mutex_unlock(&vm->coalesce.lock);
	return n;
}

int stats_add(struct vm *vm, const char *name, json_t *(*value)(void *opaque), void *opaque)
{
	if (vm->nr_stats == STATS_SOURCES)
		return -ENOSPC;
	vm->stats[vm->nr_stats++] = (struct stats_source){ .name = name, .value = value, .opaque = opaque };
	return 0;
}

json_t *stats_object(struct vm *vm)
{
	json_t *root = json_object(), *time = json_object(), *devices = json_object(), *vcpus = json_array();
	uint64_t first = atomic_load(&vm->first_run_ns);
	uint64_t end = vm->end_ns ? vm->end_ns : clock_ns();
	struct memory_use use;

	json_object_set_new(root, "version", json_string(VMM_VERSION));
	json_object_set_new(root, "status", number((uint64_t)atomic_load(&vm->status)));
	json_object_set_new(time, "start_monotonic_ns", number(vm->start_ns));
	json_object_set_new(time, "first_run_ms", first ? milliseconds(first - vm->start_ns) : json_null());
	json_object_set_new(time, "end_ms", milliseconds(end - vm->start_ns));
	json_object_set_new(root, "time", time);
	json_object_set_new(root, "post", post_array(vm));
	json_object_set_new(root, "post_codes", number(atomic_load(&vm->post_count)));
	json_object_set_new(root, "resets", number(vm->resets));
	json_object_set_new(root, "user_exits", number(stats_user_exits(vm)));
	json_object_set_new(root, "coalesced_writes", number(coalesced_writes(vm)));
	add_hits(devices, &vm->pio, vm, true);
	add_hits(devices, &vm->mmio, vm, false);
	json_object_set_new(root, "device_accesses", devices);
	for (unsigned int i = 0; i < vm->nr_vcpus; i++)
		json_array_append_new(vcpus, vcpu_object(&vm->vcpus[i]));
	json_object_set_new(root, "vcpus", vcpus);
	json_object_set_new(root, "io_uring_submissions", number(vm->loop.submissions));
	for (unsigned int i = 0; i < vm->nr_stats; i++)
		json_object_set_new(root, vm->stats[i].name, vm->stats[i].value(vm->stats[i].opaque));
	if (stats_memory(vm, &use) == 0) {
		json_object_set_new(root, "guest_ram_resident_kib", number(use.guest));
		json_object_set_new(root, "memory_outside_ram_kib",
				    json_pack("{s:o,s:o,s:o}", "resident", number(use.resident), "anonymous",
					      number(use.anonymous), "peak", number(use.peak)));
	}
	return root;
}

int stats_write(struct vm *vm, const char *path)
{
	json_t *root = stats_object(vm);
	FILE *f = fopen(path, "we");
	int ret = 0;

	if (!f || json_dumpf(root, f, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9)) ||
	    fputc('\n', f) == EOF)
		ret = errno ? -errno : -EIO;
	if (f && fclose(f) && !ret)
		ret = -errno;
	json_decref(root);
	if (ret)
		log_line("--stats %s: %s", path, strerror(-ret));
	return ret;
}
