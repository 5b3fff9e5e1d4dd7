/* SPDX-License-Identifier: MIT */
#include "vmm/options.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/options_devices.h"

#define HELP_COLUMN 32 /* where what an option does begins */

struct option {
	const char *name;
	const char *argument; /* NULL: takes none */
	const char *help;
	int (*set)(struct options_parser *p, const char *value);
};

int options_fail(struct options_parser *p, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(p->err, p->errlen, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

int parse_size(const char *text, uint64_t *bytes)
{
	static const char units[] = "KMGT";
	unsigned int shift = 20;
	unsigned long long n;
	const char *unit;
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno)
		return -EINVAL;
	if (*end) {
		unit = strchr(units, toupper((unsigned char)*end));
		if (!unit || end[1])
			return -EINVAL;
		shift = 10 * (unsigned int)(unit - units + 1);
	}
	if (n > UINT64_MAX >> shift)
		return -EINVAL;
	*bytes = (uint64_t)n << shift;
	return 0;
}

static int parse_count(const char *text, unsigned long max, unsigned long *count)
{
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	*count = strtoul(text, &end, 10);
	return errno || *end || *count > max ? -EINVAL : 0;
}

static int set_kernel(struct options_parser *p, const char *value)
{
	p->config->kernel = value;
	return 0;
}

static int set_firmware(struct options_parser *p, const char *value)
{
	p->config->firmware = value;
	return 0;
}

static int set_nvram(struct options_parser *p, const char *value)
{
	p->config->nvram = value;
	return 0;
}

static int set_initrd(struct options_parser *p, const char *value)
{
	p->config->initrd = value;
	return 0;
}

static int set_cmdline(struct options_parser *p, const char *value)
{
	if (strlen(value) > CMDLINE_MAX)
		return options_fail(p, "--cmdline: longer than %d bytes", CMDLINE_MAX);
	p->config->cmdline = value;
	return 0;
}

static int set_cpus(struct options_parser *p, const char *value)
{
	unsigned long n;

	if (parse_count(value, MAX_CPUS, &n) || !n)
		return options_fail(p, "--cpus %s: must be a number from 1 to %d", value, MAX_CPUS);
	p->config->cpus = (unsigned int)n;
	return 0;
}

static int set_memory_key(struct options_parser *p, const char *key, bool *huge, bool *shared)
{
	if (!strcmp(key, "hugepages=on") || !strcmp(key, "hugepages=off"))
		*huge = !strcmp(key, "hugepages=on");
	else if (!strcmp(key, "shared=on") || !strcmp(key, "shared=off"))
		*shared = !strcmp(key, "shared=on");
	else
		return options_fail(p, "--memory: '%s' is not hugepages=on|off or shared=on|off", key);
	return 0;
}

static int set_memory(struct options_parser *p, const char *value)
{
	char buffer[128], *rest = buffer, *size;
	bool huge = false, shared = false;
	uint64_t bytes;
	int ret = 0;

	if (snprintf(buffer, sizeof(buffer), "%s", value) >= (int)sizeof(buffer))
		return options_fail(p, "--memory: too long");
	size = strsep(&rest, ",");
	if (parse_size(size, &bytes))
		return options_fail(p, "--memory %s: not a size such as 512M or 4G", size);
	if (bytes < MEMORY_MIN || bytes > MEMORY_MAX)
		return options_fail(p, "--memory %s: must be from 32M to 4T", size);
	if (bytes % (2 << 20))
		return options_fail(p, "--memory %s: must be a multiple of 2M", size);
	p->config->memory = bytes;
	while (rest && !ret)
		ret = set_memory_key(p, strsep(&rest, ","), &huge, &shared);
	/* Huge pages come from a memfd as well: such memory can always be shared. */
	p->config->backing = huge ? RAM_HUGETLB : shared ? RAM_MEMFD : RAM_ANON;
	return ret;
}

static int set_serial(struct options_parser *p, const char *value)
{
	if (strcmp(value, "stdio") != 0 && strcmp(value, "null") != 0 &&
	    (strncmp(value, "file:", 5) != 0 || !value[5]) && (strncmp(value, "unix:", 5) != 0 || !value[5]))
		return options_fail(p, "--serial %s: must be stdio, null, file:PATH or unix:PATH", value);
	p->config->serial = value;
	return 0;
}

static int set_boot(struct options_parser *p, const char *value)
{
	static const char *const names[] = {
		[BOOT_AUTO] = "auto", [BOOT_HOST] = "host", [BOOT_GUEST] = "guest", [BOOT_PVH] = "pvh"
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (!strcmp(value, names[i])) {
			p->config->boot = (enum boot_mode)i;
			return 0;
		}
	}
	return options_fail(p, "--boot %s: must be auto, host, guest or pvh", value);
}

static int set_no_reboot(struct options_parser *p, const char *value)
{
	(void)value;
	p->config->no_reboot = true;
	return 0;
}

static int set_timeout(struct options_parser *p, const char *value)
{
	char *end;
	double seconds;

	if (!isdigit((unsigned char)value[0]))
		return options_fail(p, "--timeout %s: must be a number of seconds", value);
	seconds = strtod(value, &end);
	if (*end || !(seconds > 0) || seconds > 1e9)
		return options_fail(p, "--timeout %s: must be a number of seconds above 0", value);
	p->config->timeout_ns = (uint64_t)(seconds * 1e9);
	return 0;
}

static int set_stats(struct options_parser *p, const char *value)
{
	p->config->stats = value;
	return 0;
}

static int set_control(struct options_parser *p, const char *value)
{
	p->config->control = value;
	return 0;
}

static int set_trace(struct options_parser *p, const char *value)
{
	if (!strcmp(value, "help")) {
		p->config->action = ACTION_TRACE_HELP;
		return 0;
	}
	if (p->config->nr_traces == MAX_TRACES)
		return options_fail(p, "--trace: given more than %d times", MAX_TRACES);
	p->config->traces[p->config->nr_traces++] = value;
	return 0;
}

/* A server maps guest RAM, unless it is to ask for every byte. */
static bool wants_shared_memory(const struct config *config)
{
	for (unsigned int i = 0; i < config->nr_vfio_user; i++)
		if (!config->vfio_user[i].secure_dma)
			return true;
	return config->nr_vhost_user;
}

static int set_dump_dtb(struct options_parser *p, const char *value)
{
	p->config->dump_dtb = value;
	return 0;
}

/* What "on", "synic=..." or "timers=..." of this length says; false: it is none of them. */
static bool set_hyperv_key(struct config *config, const char *key, size_t length)
{
	static const struct {
		const char *text;
		enum hv_synic synic;
		enum hv_timers timers;
	} keys[] = {
		{ .text = "on" },
		{ .text = "synic=auto" },
		{ .text = "synic=kvm", .synic = HV_SYNIC_KVM },
		{ .text = "synic=user", .synic = HV_SYNIC_USER },
		{ .text = "timers=on", .timers = HV_TIMERS_ON },
		{ .text = "timers=off", .timers = HV_TIMERS_OFF },
	};

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		if (strlen(keys[i].text) != length || memcmp(keys[i].text, key, length) != 0)
			continue;
		if (keys[i].timers)
			config->hv_timers = keys[i].timers;
		else
			config->synic = keys[i].synic;
		return true;
	}
	return false;
}

static int set_hyperv(struct options_parser *p, const char *value)
{
	const char *at = value;

	p->config->hyperv = true;
	p->config->synic = HV_SYNIC_AUTO;
	p->config->hv_timers = HV_TIMERS_AUTO;
	for (;;) {
		size_t length = strcspn(at, ",");

		if (!set_hyperv_key(p->config, at, length))
			return options_fail(
				p, "--hyperv %s: must be on, synic=auto|kvm|user or timers=on|off, or some of these",
				value);
		if (!at[length])
			return 0;
		at += length + 1;
	}
}

static int set_msr(struct options_parser *p, const char *value)
{
	if (strcmp(value, "ignore") != 0 && strcmp(value, "fault") != 0)
		return options_fail(p, "--msr %s: must be ignore or fault", value);
	p->config->msr = strcmp(value, "ignore") ? MSR_FAULT : MSR_IGNORE;
	return 0;
}

static int set_rtc(struct options_parser *p, const char *value)
{
	if (strcmp(value, "utc") != 0 && strcmp(value, "local") != 0)
		return options_fail(p, "--rtc %s: must be utc or local", value);
	p->config->rtc = strcmp(value, "local") ? RTC_UTC : RTC_LOCAL;
	return 0;
}

static int set_vmbus(struct options_parser *p, const char *value)
{
	(void)value;
	p->config->hyperv = true;
	p->config->vmbus = true;
	return 0;
}

static int set_check_host(struct options_parser *p, const char *value)
{
	(void)value;
	p->config->action = ACTION_CHECK_HOST;
	return 0;
}

static int set_version(struct options_parser *p, const char *value)
{
	(void)value;
	p->config->action = ACTION_VERSION;
	return 0;
}

static int set_help(struct options_parser *p, const char *value)
{
	(void)value;
	p->config->action = ACTION_HELP;
	return 0;
}

static const struct option options[] = {
	{ "kernel", "FILE", "bzImage or ELF kernel to boot", set_kernel },
	{ "firmware", "FILE", "boot by UEFI firmware such as OVMF_CODE_4M.fd", set_firmware },
	{ "nvram", "FILE", "where the firmware keeps its variables", set_nvram },
	{ "initrd", "FILE", "initial RAM disk", set_initrd },
	{ "cmdline", "STRING", "kernel command line; vmm adds its console when it names none", set_cmdline },
	{ "cpus", "N", "virtual CPUs, 1 to 254 (1)", set_cpus },
	{ "memory", "SIZE[,hugepages=on][,shared=on]", "guest RAM, 32M and more (256M)", set_memory },
	{ "serial", "stdio|null|file:PATH|unix:PATH", "where the serial console goes (stdio)", set_serial },
	{ "boot", "auto|host|guest|pvh", "who unpacks the kernel, and its entry (auto)", set_boot },
	{ "no-reboot", NULL, "a guest's reset ends vmm with status 0", set_no_reboot },
	{ "timeout", "SECONDS", "end with status 124 after this time", set_timeout },
	{ "stats", "FILE", "write figures of the run as JSON when it ends", set_stats },
	{ "control", "PATH", "take commands at a Unix socket; see 'vmm ctl --help'", set_control },
	{ "trace", "GLOB[,file=PATH]", "print matching trace points; 'help' lists them", set_trace },
	{ "kvp", "KEY=VALUE", "give the guest this item by Hyper-V's data exchange", options_set_kvp },
	{ "disk", "PATH[,readonly=on][,boot=on][,direct=on|off][,serial=S]", "a disk, or a DVD if PATH ends in .iso",
	  options_set_disk },
	{ "ivshmem", "path=FILE,size=SIZE[,readonly=on]", "memory that others share; or socket=PATH[,vectors=N]",
	  options_set_ivshmem },
	{ "vfio-user", "socket=PATH[,timeout=MS][,secure-dma=on][,reconnect=on][,posted=off]",
	  "a PCI device that another process serves", options_set_vfio_user },
	{ "vhost-user", "socket=PATH,device=fs|blk|net|ID[,queues=N][,queue-size=N][,reconnect=on]...",
	  "a virtio device whose back-end is another process", options_set_vhost_user },
	{ "dump-dtb", "FILE", "write the machine's device tree", set_dump_dtb },
	{ "device", "pci-test|hv-test|vmbus-test", "add a device that the test guests drive", options_set_device },
	{ "hyperv", "on|synic=auto|kvm|user[,timers=on|off]", "be Hyper-V to the guest; who gives it the SynIC (auto)",
	  set_hyperv },
	{ "msr", "ignore|fault", "read an MSR that KVM does not know as 0, or fault; tell of it (KVM's own rule)",
	  set_msr },
	{ "rtc", "utc|local", "what the real-time clock shows (utc)", set_rtc },
	{ "net", "tap=NAME|fd=N|user[,mac=MAC][,queues=N][,mtu=N][,hostfwd=tcp:HOST-GUEST]...", "a network card",
	  options_set_net },
	{ "vmbus", NULL, "VMBus and its devices; implies --hyperv on", set_vmbus },
	{ "check-host", NULL, "report what this host offers, and end", set_check_host },
	{ "version", NULL, "print the version, and end", set_version },
	{ "help", NULL, "print this, and end", set_help },
};

static const struct option *find_option(const char *name, size_t length)
{
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		if (strlen(options[i].name) == length && !strncmp(options[i].name, name, length))
			return &options[i];
	return NULL;
}

/* One option, "--name value" or "--name=value"; advances *at past what it used. */
static int parse_one(struct options_parser *p, int argc, char *const argv[], int *at)
{
	const char *text = argv[(*at)++], *value = NULL;
	const struct option *o;
	size_t length;

	if (!strcmp(text, "-h"))
		text = "--help";
	if (strncmp(text, "--", 2) != 0)
		return options_fail(p, "'%s' is not an option (--kernel FILE boots a kernel; see --help)", text);
	length = strcspn(text + 2, "=");
	o = find_option(text + 2, length);
	if (!o)
		return options_fail(p, "--%.*s: no such option (see --help)", (int)length, text + 2);
	if (text[2 + length] == '=')
		value = text + 2 + length + 1;
	if (!o->argument && value)
		return options_fail(p, "--%s takes no value", o->name);
	if (o->argument && !value) {
		if (*at >= argc)
			return options_fail(p, "--%s needs a value: %s", o->name, o->argument);
		value = argv[(*at)++];
	}
	if (value && !*value && o->set != set_cmdline)
		return options_fail(p, "--%s: the value is empty; it should be %s", o->name, o->argument);
	return o->set(p, value);
}

int options_parse(int argc, char *const argv[], struct config *config, char *err, size_t errlen)
{
	struct options_parser p = { .config = config, .err = err, .errlen = errlen };
	int at = 1;

	memset(config, 0, sizeof(*config));
	config->cpus = 1;
	config->memory = 256 << 20;
	config->serial = "stdio";
	while (at < argc) {
		int ret = parse_one(&p, argc, argv, &at);

		if (ret)
			return ret;
		if (config->action != ACTION_RUN)
			return 0;
	}
	if (config->backing == RAM_ANON && wants_shared_memory(config))
		config->backing = RAM_MEMFD;
	if (config->nr_nets && !config->vmbus)
		return options_fail(&p, "--net needs --vmbus");
	if (config->nr_kvp && !config->vmbus)
		return options_fail(&p, "--kvp needs --vmbus");
	if (config->nvram && !config->firmware)
		return options_fail(&p, "--nvram needs --firmware");
	if (config->firmware && config->boot != BOOT_AUTO)
		return options_fail(&p, "--boot cannot be used with --firmware, which boots the kernel itself");
	if (config->firmware && !config->kernel && (config->initrd || config->cmdline))
		return options_fail(&p, "--%s needs --kernel", config->initrd ? "initrd" : "cmdline");
	if (!config->kernel && !config->firmware && !config->dump_dtb)
		return options_fail(&p, "--kernel FILE is missing (see --help)");
	return 0;
}

void options_print_help(void)
{
	puts("usage: vmm --kernel FILE | --firmware FILE [OPTION]...\n"
	     "       vmm ctl PATH COMMAND [ARGUMENT]...\n"
	     "       vmm ivshmem-server [OPTION]...\n"
	     "Boots a Linux kernel, or firmware, in a virtual machine on /dev/kvm.\n");
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		const char *argument = options[i].argument;
		int column = printf("  --%s%s%s", options[i].name, argument ? " " : "", argument ? argument : "");

		if (column > HELP_COLUMN) {
			putchar('\n');
			column = 0;
		}
		printf("%*s %s\n", HELP_COLUMN - column, "", options[i].help);
	}
	puts("\nExit status: 0 the guest powered off, 1 bad usage or a failure of the host,\n"
	     "3 the guest panicked, 4 it crashed, 124 --timeout, or the byte it wrote to the\n"
	     "debug-exit port. The manual page vmm(1) has the details.");
}
