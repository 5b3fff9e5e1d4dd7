/* SPDX-License-Identifier: MIT */
/*
 * Configuration space. The bytes are the server's, read once; those that cannot change are answered from that copy, and
 * so are those that are the machine's: BARs, command and status, interrupt pin, MSI and MSI-X. What is left (the bodies
 * of most capabilities) is asked of the server each time. Writes are told to it always, and waited for; but a BAR only
 * when it decodes, because guests write what is no address while they look for its size.
 *
 * MSI and MSI-X are those of devices/pci/, at the server's offsets. The server's MSI capability may be smaller than
 * ours: it then moves to where there is room.
 */
#include <errno.h>
#include <string.h>

#include "devices/pci/msi.h"
#include "devices/pci/msix.h"
#include "devices/vfio-user/internal.h"
#include "vmm/log.h"

#define CAP_MAX	      48
#define CAP_MSI_SIZE  24
#define CAP_MSIX_SIZE 12
#define CAP_PM	      0x01
#define CAP_FIRST     PCI_CAPABILITY_FIRST
#define EXT_CAP_DSN   0x0003
#define ROM_REGISTER  0x30

struct cap {
	uint8_t id;
	unsigned int offset;
};

struct caps {
	struct cap list[CAP_MAX];
	unsigned int count;
};

static uint32_t get(const struct vfu_info *info, unsigned int reg, unsigned int size)
{
	uint32_t value = 0;

	memcpy(&value, &info->config[reg], size);
	return value;
}

static int find_caps(const struct vfu_info *info, struct caps *caps, const char **why)
{
	unsigned int at = get(info, PCI_CAPABILITIES, 1) & 0xfc;

	caps->count = 0;
	if (!(get(info, PCI_STATUS, 2) & PCI_STATUS_CAPABILITIES))
		return 0;
	while (at) {
		if (at < CAP_FIRST || caps->count == CAP_MAX) {
			*why = "the capabilities in configuration space leave it or go in circles";
			return -EPROTO;
		}
		for (unsigned int i = 0; i < caps->count; i++) {
			if (caps->list[i].offset == at) {
				*why = "the capabilities in configuration space go in circles";
				return -EPROTO;
			}
		}
		caps->list[caps->count++] = (struct cap){ (uint8_t)get(info, at, 1), at };
		at = get(info, at + 1, 1) & 0xfc;
	}
	return 0;
}

/* Where the capability after `offset` begins: what lies between may belong to it. */
static unsigned int end_of(const struct caps *caps, unsigned int offset)
{
	unsigned int end = PCI_EXTENDED_FIRST;

	for (unsigned int i = 0; i < caps->count; i++)
		if (caps->list[i].offset > offset && caps->list[i].offset < end)
			end = caps->list[i].offset;
	return end;
}

static bool has_bar(const struct vfu_info *info, unsigned int bar, uint64_t offset, uint64_t length)
{
	return bar < VFU_BARS && info->regions[bar].size >= length && offset <= info->regions[bar].size - length &&
	       !(get(info, PCI_BAR0 + 4 * bar, 1) & PCI_BAR_IO);
}

static int check_msix(const struct vfu_info *info, unsigned int at, const char **why)
{
	uint32_t count = (get(info, at + 2, 2) & 0x7ff) + 1, table = get(info, at + 4, 4), pba = get(info, at + 8, 4);

	if (at + CAP_MSIX_SIZE > PCI_EXTENDED_FIRST || !has_bar(info, table & 7, table & ~7u, 16ULL * count) ||
	    !has_bar(info, pba & 7, pba & ~7u, (count + 63) / 64 * 8)) {
		*why = "the table of MSI-X is not in a BAR";
		return -EPROTO;
	}
	return 0;
}

int vfu_config_check(const struct vfu_info *info, const char **why)
{
	struct caps caps;
	int ret = find_caps(info, &caps, why);

	if (!ret && (get(info, PCI_HEADER_TYPE, 1) & 0x7f)) {
		*why = "configuration space does not have the header of a device";
		ret = -EPROTO;
	}
	for (unsigned int i = 0; i < caps.count && !ret; i++)
		if (caps.list[i].id == PCI_CAP_MSIX)
			ret = check_msix(info, caps.list[i].offset, why);
	return ret;
}

void vfu_config_ids(const struct vfu_info *info, struct pci_ids *ids)
{
	*ids = (struct pci_ids){
		.vendor = (uint16_t)get(info, PCI_VENDOR_ID, 2),
		.device = (uint16_t)get(info, PCI_DEVICE_ID, 2),
		.subsystem_vendor = (uint16_t)get(info, PCI_SUBSYSTEM_VENDOR, 2),
		.subsystem = (uint16_t)get(info, PCI_SUBSYSTEM, 2),
		.class_code = get(info, PCI_REVISION, 4) >> 8,
		.revision = (uint8_t)get(info, PCI_REVISION, 1),
	};
}

static void set_local(struct vfu_device *d, unsigned int reg, unsigned int size)
{
	for (unsigned int i = reg; i < reg + size && i < VFU_CONFIG_SIZE; i++)
		d->local[i / 8] |= (uint8_t)(1u << i % 8);
}

static bool is_local(const struct vfu_device *d, unsigned int reg)
{
	return d->local[reg / 8] >> reg % 8 & 1;
}

static void copy_bytes(struct vfu_device *d, unsigned int reg, unsigned int end)
{
	for (; reg < end; reg++)
		pci_config_define(&d->fn, reg, 1, d->info->config[reg], 0, 0);
}

/* PCI Express 4.0, 7.5.3: the registers of the capability that only say what there is. */
static void set_express_local(struct vfu_device *d, unsigned int at, unsigned int end)
{
	static const uint8_t constant[] = { 0x02, 0x04, 0x0c, 0x14, 0x24, 0x2c, 0x34 };

	for (unsigned int i = 0; i < sizeof(constant); i++)
		if (at + constant[i] + 4 <= end)
			set_local(d, at + constant[i], constant[i] == 2 ? 2 : 4);
}

/* MSI-X where the server has it. */
static int make_msix(struct vfu_device *d, unsigned int at)
{
	uint32_t count = (get(d->info, at + 2, 2) & 0x7ff) + 1;
	uint32_t table = get(d->info, at + 4, 4), pba = get(d->info, at + 8, 4);
	uint32_t irqs = d->info->irqs[VFU_IRQ_MSIX].count;
	int ret;

	if (count > irqs)
		count = irqs;
	if (count > VFU_VECTORS_MAX)
		count = VFU_VECTORS_MAX;
	if (!count || d->msix)
		return 0;
	d->fn.next_cap = at;
	d->fn.last_cap = 0;
	ret = msix_init(&d->fn, count, table & 7, table & ~7u, pba & 7, pba & ~7u);
	d->msix = at;
	d->vectors[VFU_IRQ_MSIX] = count;
	set_local(d, at, CAP_MSIX_SIZE);
	return ret;
}

/* Bytes of the first 256 that no capability lays claim to, as far as one can say. */
static unsigned int find_room(const struct vfu_device *d, const struct caps *caps, unsigned int own)
{
	for (unsigned int at = CAP_FIRST; at + CAP_MSI_SIZE <= PCI_EXTENDED_FIRST; at += 4) {
		bool is_free = true;

		for (unsigned int i = 0; i < CAP_MSI_SIZE && is_free; i++)
			is_free = !d->info->config[at + i] || (at + i >= own && at + i < own + 10);
		for (unsigned int i = 0; i < caps->count && is_free; i++)
			is_free = caps->list[i].offset == own || at >= caps->list[i].offset + 64 ||
				  at + CAP_MSI_SIZE <= caps->list[i].offset;
		if (is_free)
			return at;
	}
	return 0;
}

static int make_msi(struct vfu_device *d, const struct caps *caps, unsigned int at)
{
	uint32_t control = get(d->info, at + 2, 2), irqs = d->info->irqs[VFU_IRQ_MSI].count;
	unsigned int log2 = control >> 1 & 7, place = at;
	int ret;

	while (log2 && (log2 > 5 || 1u << log2 > irqs))
		log2--;
	if (!irqs || d->msi)
		return 0;
	if (at + CAP_MSI_SIZE > end_of(caps, at)) {
		place = find_room(d, caps, at);
		d->msi_moved = true;
	}
	if (!place)
		return 0;
	d->fn.next_cap = place;
	d->fn.last_cap = 0;
	ret = pci_msi_init(&d->fn, 1u << log2);
	d->msi = place;
	d->vectors[VFU_IRQ_MSI] = 1u << log2;
	set_local(d, place, CAP_MSI_SIZE);
	return ret;
}

static int make_caps(struct vfu_device *d, struct caps *caps)
{
	unsigned int before = PCI_CAPABILITIES, kept = 0, msi;
	uint32_t status = get(d->info, PCI_STATUS, 2) & 0x06b0; /* capabilities, 66 MHz, back-to-back, timing */
	int ret = 0;

	for (unsigned int i = 0; i < caps->count && !ret; i++) {
		const struct cap *c = &caps->list[i];
		unsigned int end = end_of(caps, c->offset);

		set_local(d, c->offset, 2);
		if (c->id == PCI_CAP_MSIX)
			ret = make_msix(d, c->offset);
		else if (c->id == PCI_CAP_MSI)
			ret = make_msi(d, caps, c->offset);
		else if (c->id == CAP_PM && c->offset + 4 <= end)
			set_local(d, c->offset, 4);
		else if (c->id == PCI_CAP_EXPRESS)
			set_express_local(d, c->offset, end);
	}
	/* The chain again, without what could not be kept, or is there twice. */
	msi = d->msi;
	for (unsigned int i = 0; i < caps->count; i++) {
		unsigned int at = caps->list[i].offset;

		if (caps->list[i].id == PCI_CAP_MSI)
			at = msi;
		else if (caps->list[i].id == PCI_CAP_MSIX && at != d->msix)
			at = 0;
		if (!at)
			continue;
		if (at == msi)
			msi = 0;
		pci_config_define(&d->fn, before == PCI_CAPABILITIES ? before : before + 1, 1, at, 0, 0);
		pci_config_define(&d->fn, at + 1, 1, 0, 0, 0);
		before = at;
		kept++;
	}
	if (!kept) {
		pci_config_define(&d->fn, PCI_CAPABILITIES, 1, 0, 0, 0);
		status &= ~(uint32_t)PCI_STATUS_CAPABILITIES;
	}
	pci_config_define(&d->fn, PCI_STATUS, 2, status, 0, 0xf900);
	return ret;
}

/* Headers are constant; of bodies, only serial numbers are known to be. */
static void set_extended_local(struct vfu_device *d)
{
	unsigned int at = PCI_EXTENDED_FIRST;

	for (unsigned int i = 0; d->info->config_size == VFU_CONFIG_SIZE && i < 960; i++) {
		uint32_t header = get(d->info, at, 4);

		set_local(d, at, (header & 0xffff) == EXT_CAP_DSN ? 12 : 4);
		at = header >> 20 & 0xffc;
		if (at < PCI_EXTENDED_FIRST)
			break;
	}
	if (d->info->config_size < VFU_CONFIG_SIZE)
		set_local(d, PCI_EXTENDED_FIRST, VFU_CONFIG_SIZE - PCI_EXTENDED_FIRST);
}

int vfu_config_build(struct vfu_device *d, const char **why)
{
	unsigned int pin = get(d->info, PCI_INTERRUPT_PIN, 1);
	struct caps caps;
	int ret = find_caps(d->info, &caps, why);

	if (ret)
		return ret;
	copy_bytes(d, 0x28, PCI_SUBSYSTEM_VENDOR); /* CardBus CIS */
	copy_bytes(d, 0x3e, CAP_FIRST);		   /* latencies */
	copy_bytes(d, CAP_FIRST, d->info->config_size);
	set_local(d, 0, CAP_FIRST);
	if (pin >= 1 && pin <= 4 && d->info->irqs[VFU_IRQ_INTX].count) {
		pci_set_pin(&d->fn, pin);
		d->vectors[VFU_IRQ_INTX] = 1;
	}
	ret = make_caps(d, &caps);
	if (ret)
		*why = "MSI or MSI-X could not be set up";
	set_extended_local(d);
	return ret;
}

void vfu_config_read(struct pci_function *fn, unsigned int reg, unsigned int size, uint32_t *value)
{
	struct vfu_device *d = vfu_device_of(fn);
	uint32_t mask = 0;
	uint64_t theirs;

	for (unsigned int i = 0; i < size; i++)
		if (!is_local(d, reg + i))
			mask |= 0xffu << 8 * i;
	if (!mask)
		return;
	vfu_link_read(&d->link, VFU_REGION_CONFIG, reg, size, &theirs);
	*value = (*value & ~mask) | ((uint32_t)theirs & mask);
}

struct config_write {
	struct vfu_region_access access;
	uint32_t value;
};

static struct config_write config_write(unsigned int reg, unsigned int size, uint32_t value)
{
	return (struct config_write){ { .offset = reg, .region = VFU_REGION_CONFIG, .count = size }, value };
}

static int tell(struct vfu_device *d, unsigned int reg, unsigned int size, uint32_t value, enum vfu_how how,
		uint64_t deadline)
{
	const struct config_write w = config_write(reg, size, value);

	return vfu_link_command(&d->link, VFU_REGION_WRITE, &w, sizeof(w.access) + size, NULL, 0, how, deadline);
}

static uint32_t config_now(struct vfu_device *d, unsigned int reg, unsigned int size)
{
	pthread_mutex_lock(&d->fn.bus->lock);
	uint32_t value = pci_config_get(&d->fn, reg, size);

	pthread_mutex_unlock(&d->fn.bus->lock);
	return value;
}

/* BARs that decode and that the server knows otherwise. The server takes one thing after the other, so that only the
 * last one has to be waited for: that of the caller, or (`wait`) of these. */
static void tell_bars(struct vfu_device *d, bool wait, uint64_t deadline)
{
	uint32_t command = config_now(d, PCI_COMMAND, 2);
	struct {
		unsigned int reg;
		uint32_t value;
	} news[VFU_BARS];
	unsigned int count = 0;

	if (!(command & (PCI_COMMAND_IO | PCI_COMMAND_MEMORY)))
		return;
	for (unsigned int i = 0; i < VFU_BARS; i++) {
		uint32_t value = config_now(d, PCI_BAR0 + 4 * i, 4), writable;
		bool changed;

		memcpy(&writable, &d->fn.writable[PCI_BAR0 + 4 * i], sizeof(writable));
		/* All ones is a guest that looks for the size. */
		if (!writable || (value & writable) == writable)
			continue;
		pthread_mutex_lock(&d->bar_lock);
		changed = d->told[i] != value;
		d->told[i] = value;
		pthread_mutex_unlock(&d->bar_lock);
		if (changed) {
			news[count].reg = PCI_BAR0 + 4 * i;
			news[count++].value = value;
		}
	}
	for (unsigned int i = 0; i < count; i++)
		tell(d, news[i].reg, 4, news[i].value, wait && i + 1 == count ? VFU_WAIT : VFU_ASYNC, deadline);
}

static bool overlaps(unsigned int reg, unsigned int size, unsigned int at, unsigned int length)
{
	return at && reg < at + length && at < reg + size;
}

void vfu_config_written(struct pci_function *fn, unsigned int reg, unsigned int size, uint32_t value)
{
	struct vfu_device *d = vfu_device_of(fn);
	bool msi = overlaps(reg, size, d->msi, CAP_MSI_SIZE);
	uint64_t deadline = vfu_link_deadline(&d->link);
	int ret = 0;

	if (!vfu_link_alive(&d->link))
		return;
	if (reg < PCI_COMMAND + 2 && PCI_COMMAND < reg + size)
		vfu_irqs_command(d, config_now(d, PCI_COMMAND, 2));
	if (reg < PCI_BAR0 + 4 * VFU_BARS && PCI_BAR0 < reg + size) {
		tell_bars(d, true, deadline);
		return;
	}
	if (reg < PCI_COMMAND + 2 && PCI_COMMAND < reg + size)
		tell_bars(d, false, deadline);
	if (!(msi && d->msi_moved) && !overlaps(reg, size, ROM_REGISTER, 4) && reg + size <= d->info->config_size)
		ret = tell(d, reg, size, value, VFU_WAIT, deadline);
	/* One access, one timeout: after that the server is told without being waited for. */
	if (msi || overlaps(reg, size, d->msix, CAP_MSIX_SIZE))
		vfu_irqs_update(d, ret == -ETIMEDOUT ? 0 : deadline);
}

bool vfu_config_request(struct vfu_device *d, unsigned int n, struct vfu_request *r)
{
	struct config_write w;
	unsigned int cap;

	if (n < VFU_BARS) {
		unsigned int reg = PCI_BAR0 + 4 * n;
		uint32_t value = config_now(d, reg, 4);

		pthread_mutex_lock(&d->bar_lock);
		d->told[n] = value;
		pthread_mutex_unlock(&d->bar_lock);
		w = config_write(reg, 4, value);
	} else if (n == VFU_BARS) {
		w = config_write(PCI_COMMAND, 2, config_now(d, PCI_COMMAND, 2));
	} else if (n <= VFU_BARS + 2) {
		/* Once more the command register, if there is no such capability. */
		cap = n == VFU_BARS + 2 ? d->msix : d->msi_moved ? 0 : d->msi;
		w = config_write(cap ? cap + 2 : PCI_COMMAND, 2, config_now(d, cap ? cap + 2 : PCI_COMMAND, 2));
	} else {
		return false;
	}
	r->command = VFU_REGION_WRITE;
	r->nr_fds = 0;
	r->size = sizeof(w.access) + w.access.count;
	memcpy(r->payload, &w, r->size);
	return true;
}

void vfu_config_reset(struct vfu_device *d)
{
	pthread_mutex_lock(&d->bar_lock);
	for (unsigned int i = 0; i < VFU_BARS; i++)
		d->told[i] = UINT32_MAX;
	pthread_mutex_unlock(&d->bar_lock);
	tell(d, PCI_COMMAND, 2, 0, VFU_ASYNC, 0);
}
