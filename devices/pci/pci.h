/* SPDX-License-Identifier: MIT */
/*
 * One PCI Express root bus: bus 0 of segment 0, 32 slots of 8 functions, no bridges below it.
 *
 * The guest reaches configuration space by the ports 0xCF8/0xCFC (the first 256 bytes) and by ECAM (all
 * 4096). Functions are owned by their devices and hang on the bus from pci_function_init() until the machine
 * ends; the bus resets and destroys them. They are created before any vCPU runs.
 *
 * Locks, outermost first: bus->lock (configuration space, BAR mappings) > a device's own lock >
 * bus->intx_lock. Configuration hooks and pci_function_ops.reset run under bus->lock and must not access
 * configuration space through pci_config_read/write(); register functions of a BAR run without it.
 * pci_set_intx() and the notify functions of MSI and MSI-X take no bus->lock and may be called from any
 * thread, device locks held or not.
 *
 * Sources: PCI Local Bus Specification 3.0, chapters 3 and 6; PCI Express Base Specification, chapter 7.
 */
#ifndef DEVICES_PCI_PCI_H
#define DEVICES_PCI_PCI_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "vmm/bus.h"
#include "vmm/device.h"

#define PCI_SLOTS	    32
#define PCI_FUNCTIONS	    256 /* devfn values */
#define PCI_CONFIG_SIZE	    4096
#define PCI_ECAM_SIZE	    (PCI_FUNCTIONS * (uint64_t)PCI_CONFIG_SIZE)
#define PCI_ECAM_ALIGN	    (256ULL << 20) /* what PCIEXBAR of the host bridge can express */
#define PCI_BARS	    6
#define PCI_BAR_SEGMENTS    40
#define PCI_CONFIG_HOOKS    8
#define PCI_INTX_LINES	    4
#define PCI_INTX_GSI_BASE   12
#define PCI_UNMAPPED	    UINT64_MAX
#define PCI_DEVFN_AUTO	    (-1)
#define PCI_DEVFN(slot, fn) ((slot)*8 + (fn))

/* Registers of a type 0 header. */
enum {
	PCI_VENDOR_ID = 0x00,
	PCI_DEVICE_ID = 0x02,
	PCI_COMMAND = 0x04,
	PCI_STATUS = 0x06,
	PCI_REVISION = 0x08,
	PCI_CLASS = 0x09,
	PCI_CACHE_LINE = 0x0c,
	PCI_HEADER_TYPE = 0x0e,
	PCI_BAR0 = 0x10,
	PCI_SUBSYSTEM_VENDOR = 0x2c,
	PCI_SUBSYSTEM = 0x2e,
	PCI_CAPABILITIES = 0x34,
	PCI_INTERRUPT_LINE = 0x3c,
	PCI_INTERRUPT_PIN = 0x3d,
	PCI_CAPABILITY_FIRST = 0x40,
	PCI_EXTENDED_FIRST = 0x100,
};

enum {
	PCI_COMMAND_IO = 0x0001,
	PCI_COMMAND_MEMORY = 0x0002,
	PCI_COMMAND_MASTER = 0x0004,
	PCI_COMMAND_INTX_DISABLE = 0x0400,
	PCI_STATUS_INTX = 0x0008,
	PCI_STATUS_CAPABILITIES = 0x0010,
	PCI_HEADER_MULTIFUNCTION = 0x80,
};

enum {
	PCI_CAP_MSI = 0x05,
	PCI_CAP_VENDOR = 0x09,
	PCI_CAP_EXPRESS = 0x10,
	PCI_CAP_MSIX = 0x11,
	PCI_EXT_CAP_VENDOR = 0x000b,
};

/* The low bits of a BAR, as the register shows them. */
enum {
	PCI_BAR_MEM32 = 0x0,
	PCI_BAR_IO = 0x1,
	PCI_BAR_MEM64 = 0x4,
	PCI_BAR_PREFETCH = 0x8,
};

struct coalesce;
struct msix;
struct pci_bus;
struct pci_function;
struct pci_msi;
struct vm;

/* A range of guest addresses that BARs may get; size 0: none. */
struct pci_window {
	uint64_t base, size;
};

struct pci_windows {
	uint64_t ecam; /* 256 MiB aligned guest-physical base, or 0: off until the firmware moves it */
	struct pci_window mmio32, mmio64, io;
	uint16_t host_bridge;  /* device id of Intel's at 00:00.0; 0: that of Q35 */
	bool lpc;	       /* an ICH9 LPC bridge at 00:1f.0, which stock firmware looks for */
	bool coalesce_address; /* let KVM collect writes to 0xCF8..0xCFB: half the exits of port access (see
				  bus.c) */
};

/* Part of a BAR: registers (ops) or host memory that the guest accesses without an exit. Immutable once
 * mapped. */
struct pci_bar_segment {
	uint64_t offset, length;
	const struct io_ops *ops; /* offsets are relative to the segment */
	void *opaque;
	uint8_t *host; /* NULL: registers. With ops as well: memory that is not ours, see pci_bar_add_foreign() */
	bool readonly;
	bool lost; /* pci_bar_lose(): not mapped any more; under bus->lock */
	int slot;  /* memslot number or -1 */
};

struct pci_bar {
	struct pci_function *fn;
	unsigned int index;
	unsigned int flags;
	uint64_t size;	   /* 0: no BAR here, or the upper half of the one below */
	uint64_t mapped;   /* current base or PCI_UNMAPPED; under bus->lock */
	uint64_t refused;  /* base that could not be mapped, already told; under bus->lock */
	uint64_t assigned; /* by pci_assign_resources(), kept for resets; PCI_UNMAPPED: none */
	struct region region;
	struct pci_bar_segment segments[PCI_BAR_SEGMENTS];
	unsigned int nr_segments;
	char name[32];
};

/* Called under bus->lock: reading before the bytes are read, written after they changed. Either may be NULL.
 */
struct pci_config_hook {
	uint16_t offset, length;
	void (*reading)(struct pci_function *fn, void *opaque);
	void (*written)(struct pci_function *fn, void *opaque);
	void *opaque;
};

struct pci_function_ops {
	/* After configuration space went back to its initial values and BARs were unmapped. May be NULL. */
	void (*reset)(struct pci_function *fn);
	/*
	 * An access to configuration space, by the guest, after the function has done its part, and without bus->lock:
	 * these may wait. config_read may change *value. May be NULL.
	 */
	void (*config_read)(struct pci_function *fn, unsigned int reg, unsigned int size, uint32_t *value);
	void (*config_written)(struct pci_function *fn, unsigned int reg, unsigned int size, uint32_t value);
	/* The function is off the bus and its BARs, MSI and MSI-X are gone: frees the device. May be NULL. */
	void (*destroy)(struct pci_function *fn);
	/* A BAR is now mapped at this address, or is about to be unmapped (PCI_UNMAPPED). Under bus->lock. May be NULL.
	 */
	void (*bar_moved)(struct pci_function *fn, unsigned int index, uint64_t address);
	/*
	 * KVM could not reach memory behind the guest's access, and cannot say which. sure: only if it is certain that
	 * this function's foreign memory is to blame. True if it was given up. Under bus->lock. May be NULL.
	 */
	bool (*memory_fault)(struct pci_function *fn, bool sure);
};

struct pci_ids {
	uint16_t vendor, device;
	uint16_t subsystem_vendor, subsystem;
	uint32_t class_code; /* base << 16 | sub << 8 | programming interface */
	uint8_t revision;
};

/* Embedded in a device, zeroed. */
struct pci_function {
	struct pci_bus *bus;
	const char *name;
	const struct pci_function_ops *ops;
	unsigned int devfn;
	uint8_t config[PCI_CONFIG_SIZE]; /* under bus->lock */
	uint8_t initial[PCI_CONFIG_SIZE];
	uint8_t writable[PCI_CONFIG_SIZE];
	uint8_t clear[PCI_CONFIG_SIZE]; /* bits that writing 1 clears */
	unsigned int next_cap, last_cap, next_ext, last_ext;
	struct pci_bar bars[PCI_BARS];
	struct pci_config_hook hooks[PCI_CONFIG_HOOKS];
	unsigned int nr_hooks;
	bool boots;				      /* a disk that a firmware tries before others; set at creation */
	bool intx_level, intx_disabled, intx_driving; /* under bus->intx_lock */
	_Atomic bool gone;			      /* pci_set_gone() */
	struct msix *msix;			      /* NULL: no such capability */
	struct pci_msi *msi;
};

struct pci_bus {
	struct device device;
	struct vm *vm;
	struct pci_windows windows;
	pthread_mutex_t lock;
	struct pci_function *functions[PCI_FUNCTIONS];
	_Atomic uint32_t address; /* last dword written to 0xCF8 */
	_Atomic uint8_t reset_control;
	struct region address_region, data_region, ecam_region;
	uint64_t ecam_wanted, ecam_mapped; /* PCI_UNMAPPED: off; under lock */
	bool assigned;			   /* pci_assign_resources() succeeded: do it again at each reset */
	pthread_mutex_t intx_lock;
	unsigned int intx_count[PCI_INTX_LINES]; /* functions that drive the line */
};

/*
 * Creates the bus with its host bridge (and LPC bridge), registers it as a device of vm and sets vm->pci.
 * Owns the ports 0xCF8..0xCFF, the reset control register 0xCF9 among them. 0 or -errno; prints nothing.
 */
int pci_bus_create(struct vm *vm, const struct pci_windows *windows);

/*
 * Gives every BAR an address inside the windows and turns decoding on. Once, after all devices were created
 * and before the first vCPU runs; the bus repeats it at each reset. Not for firmware boots: firmware does it
 * itself. -ENOSPC if a BAR does not fit, -EBUSY if its address is taken: told in one line, and nothing is
 * enabled.
 */
int pci_assign_resources(struct pci_bus *bus);

/*
 * The windows as they are after a firmware has given addresses to BARs and ECAM: *w has ecam (the argument if it is
 * off), mmio32 inside *room, and mmio64 below limit. None overlaps another, whatever the guest has programmed. Any
 * thread, not holding bus->lock.
 */
void pci_find_windows(struct pci_bus *bus, const struct pci_window *room, uint64_t limit, uint64_t ecam,
		      struct pci_windows *w);

/*
 * Moves the ECAM window; PCI_UNMAPPED turns it off. While the range is taken ECAM is off, until PCI itself
 * frees it. Under bus->lock, or during creation.
 */
void pci_bus_move_ecam(struct pci_bus *bus, uint64_t base);

/*
 * One access to configuration space as a guest makes it: size 1..4 bytes at reg, any alignment. Absent
 * functions and accesses beyond the end read all ones. Any thread, not holding bus->lock.
 */
uint32_t pci_config_read(struct pci_bus *bus, unsigned int devfn, unsigned int reg, unsigned int size);
void pci_config_write(struct pci_bus *bus, unsigned int devfn, unsigned int reg, unsigned int size, uint32_t value);

/* The IOAPIC pin of INTA..INTD (pin 0..3) of a slot. The DSDT's _PRT says the same. */
static inline unsigned int pci_intx_gsi(unsigned int slot, unsigned int pin)
{
	return PCI_INTX_GSI_BASE + (slot + pin) % PCI_INTX_LINES;
}

/*
 * Puts a zeroed function on the bus. devfn: PCI_DEVFN(), or PCI_DEVFN_AUTO for function 0 of the first free
 * slot from 1 on. name is kept by reference. -EINVAL, -EEXIST (taken) or -ENOSPC (bus full).
 */
int pci_function_init(struct pci_function *fn, struct pci_bus *bus, int devfn, const char *name,
		      const struct pci_ids *ids, const struct pci_function_ops *ops);

/* Takes a function off the bus again, for a device whose creation fails half-way; does not call ops->destroy.
 */
void pci_function_fini(struct pci_function *fn);

/*
 * Defines size bytes (1, 2 or 4) of configuration space: value after reset, the bits a guest may change and
 * those it clears by writing 1. The range must lie in the 4096 bytes; during creation only.
 */
void pci_config_define(struct pci_function *fn, unsigned int reg, unsigned int size, uint32_t value, uint32_t writable,
		       uint32_t clear);

/* Current bytes, little-endian, for owners of registers. Under bus->lock or during creation; reg + size <=
 * 4096. */
uint32_t pci_config_get(const struct pci_function *fn, unsigned int reg, unsigned int size);
void pci_config_set(struct pci_function *fn, unsigned int reg, unsigned int size, uint32_t value);

/* Calls hook for accesses to its range, and hook->written at reset. -ENOSPC after PCI_CONFIG_HOOKS of them.
 */
int pci_config_hook(struct pci_function *fn, const struct pci_config_hook *hook);

/*
 * Room for a capability of size bytes, its 2-byte (extended: 4-byte) header filled in and linked; the rest is
 * zero and read-only until defined. Returns its offset, or -ENOSPC.
 */
int pci_add_capability(struct pci_function *fn, uint8_t id, unsigned int size);
int pci_add_ext_capability(struct pci_function *fn, uint16_t id, unsigned int version, unsigned int size);

/* Makes it a root complex integrated endpoint, so that guests look at its extended capabilities. 0 or
 * -ENOSPC. */
int pci_add_express(struct pci_function *fn);

/*
 * A BAR. size: a power of two, 4..65536 for I/O, 16..2 GiB for 32-bit and up to 64 TiB for 64-bit memory, which
 * takes index + 1 too. It has no content yet: add segments, which must not overlap. -EINVAL, -EEXIST.
 */
int pci_add_bar(struct pci_function *fn, unsigned int index, uint64_t size, unsigned int flags);

/* Registers at [offset, offset + length) of a BAR. An access across a segment's end reads all ones. -EINVAL,
 * -ENOSPC. */
int pci_bar_add_registers(struct pci_function *fn, unsigned int index, uint64_t offset, uint64_t length,
			  const struct io_ops *ops, void *opaque);

/*
 * Host memory as part of a memory BAR: all three page aligned, mapped by a memslot while the BAR is enabled.
 * host stays the caller's and must stay mapped until the function is gone. -EINVAL, -ENOSPC.
 */
int pci_bar_add_memory(struct pci_function *fn, unsigned int index, uint64_t offset, uint64_t length, void *host,
		       bool readonly);

/*
 * The same for memory that another process can take away, by truncating its file: vmm itself never touches it. An
 * access that exits nevertheless goes to ops, offsets relative to the segment: the memory is gone, or moves, or is
 * written although it is read-only. pci_bar_lose() gives up all such memory of a BAR for ever, under bus->lock; all
 * accesses then go to ops.
 */
int pci_bar_add_foreign(struct pci_function *fn, unsigned int index, uint64_t offset, uint64_t length, void *host,
			bool readonly, const struct io_ops *ops, void *opaque);
void pci_bar_lose(struct pci_function *fn, unsigned int index);

/* Takes pci_bar_lose() back. Under bus->lock. */
void pci_bar_regain(struct pci_function *fn, unsigned int index);

/*
 * A function that is gone is in its slot, but reads all ones everywhere, drops writes and raises no interrupt; what the
 * guest had programmed is kept for its return, but no event. Then its foreign memory is mapped again, also what had
 * been given up. Any thread, not holding bus->lock.
 */
void pci_set_gone(struct pci_function *fn, bool gone);

/* Gives the function interrupt pin 1..4 (INTA..INTD). */
void pci_set_pin(struct pci_function *fn, unsigned int pin);

/* Level of the function's INTx; shared lines are wired or. Any thread. Ignored without a pin. */
void pci_set_intx(struct pci_function *fn, bool level);

#endif
