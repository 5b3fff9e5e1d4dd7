/* SPDX-License-Identifier: MIT */
/* The command line, parsed and checked, before anything is opened. */
#ifndef VMM_OPTIONS_H
#define VMM_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arch/x86/hyperv/hyperv.h"
#include "arch/x86/msr.h"
#include "devices/block/disk.h"
#include "devices/ivshmem/ivshmem.h"
#include "devices/legacy/rtc.h"
#include "devices/net/net.h"
#include "devices/vfio-user/vfio_user.h"
#include "devices/vhost-user/vhost_user.h"
#include "vmm/memory.h"

#define MAX_CPUS    254 /* APIC ids of one byte, 0xff being broadcast */
#define MEMORY_MIN  (32ULL << 20)
#define MEMORY_MAX  (1ULL << 42)
#define CMDLINE_MAX 65535
#define MAX_TRACES  16
#define MAX_KVP	    64

/* Room for a key and a value, in bytes of UTF-8 and of UTF-16 as well, terminator included. */
#define KVP_KEY_MAX   512
#define KVP_VALUE_MAX 2048

enum boot_mode {
	BOOT_AUTO,  /* unpack on the host, the guest's own decompressor if that fails */
	BOOT_HOST,  /* unpack on the host or fail */
	BOOT_GUEST, /* the kernel's own decompressor */
	BOOT_PVH,   /* the PVH entry of an ELF file */
};

enum action { ACTION_RUN, ACTION_HELP, ACTION_VERSION, ACTION_CHECK_HOST, ACTION_TRACE_HELP };

/* Strings point into argv. */
struct config {
	enum action action;
	const char *firmware, *nvram;
	const char *kernel, *initrd, *cmdline, *serial, *stats, *dump_dtb, *control;
	const char *traces[MAX_TRACES];
	unsigned int nr_traces;
	const char *kvp[MAX_KVP]; /* "key=value" */
	unsigned int nr_kvp;
	struct net_options nets[NET_CARDS_MAX];
	unsigned int nr_nets;
	const char *disks[DISKS_MAX]; /* "PATH[,KEY=VALUE]...", checked by disk_parse() */
	unsigned int nr_disks;
	const char *ivshmem[IVSHMEM_MAX]; /* "KEY=VALUE...", checked by ivshmem_parse() */
	unsigned int nr_ivshmem;
	struct vfio_user_options vfio_user[VFIO_USER_MAX];
	unsigned int nr_vfio_user;
	struct vhost_user_options vhost_user[VHOST_USER_MAX];
	unsigned int nr_vhost_user;
	unsigned int cpus;
	uint64_t memory; /* bytes, a multiple of 2 MiB */
	enum ram_backing backing;
	enum boot_mode boot;
	uint64_t timeout_ns; /* 0: none */
	bool no_reboot;
	bool pci_test; /* --device pci-test */
	bool hyperv;   /* --hyperv, or implied by vmbus */
	bool vmbus;
	enum hv_synic synic;
	enum hv_timers hv_timers;
	enum msr_policy msr;
	enum rtc_base rtc;
	bool hv_test;	 /* --device hv-test */
	bool vmbus_test; /* --device vmbus-test */
};

/* Fills *config. 0, or -EINVAL with one sentence (naming the option) in err. Prints nothing. */
int options_parse(int argc, char *const argv[], struct config *config, char *err, size_t errlen);

/* "512M", "4G", "1T", "65536K"; a bare number counts MiB. 0 or -EINVAL (also on overflow). */
int parse_size(const char *text, uint64_t *bytes);

void options_print_help(void);

#endif
