/* SPDX-License-Identifier: MIT */
/* The command line: what it sets, and that every mistake is named in one sentence. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "vmm/options.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define PARSE(...)   parse((const char *[]){ "vmm", __VA_ARGS__, NULL })

static struct config config;
static char err[256];

static int parse(const char *const *argv)
{
	int argc = 0;

	while (argv[argc])
		argc++;
	err[0] = '\0';
	return options_parse(argc, (char *const *)argv, &config, err, sizeof(err));
}

static void defaults(void **state)
{
	(void)state;
	assert_int_equal(PARSE("--kernel", "k"), 0);
	assert_string_equal(config.kernel, "k");
	assert_int_equal(config.cpus, 1);
	assert_int_equal(config.memory, 256 << 20);
	assert_string_equal(config.serial, "stdio");
	assert_int_equal(config.backing, RAM_ANON);
	assert_int_equal(config.boot, BOOT_AUTO);
	assert_int_equal(config.timeout_ns, 0);
	assert_false(config.no_reboot);
	assert_false(config.hyperv);
	assert_false(config.vmbus);
}

static void values_by_equals_or_by_space(void **state)
{
	(void)state;
	assert_int_equal(PARSE("--kernel=a=b", "--cpus=64", "--memory", "5G,hugepages=on", "--cmdline", "", "--timeout",
			       "1.5", "--no-reboot", "--boot", "guest"),
			 0);
	assert_string_equal(config.kernel, "a=b");
	assert_int_equal(config.cpus, 64);
	assert_int_equal(config.memory, 5ULL << 30);
	assert_int_equal(config.backing, RAM_HUGETLB);
	assert_string_equal(config.cmdline, "");
	assert_int_equal(config.timeout_ns, 1500000000);
	assert_true(config.no_reboot);
	assert_int_equal(config.boot, BOOT_GUEST);
}

static void hyperv_and_its_synic(void **state)
{
	(void)state;
	assert_int_equal(PARSE("--kernel", "k", "--hyperv", "on"), 0);
	assert_true(config.hyperv);
	assert_false(config.vmbus);
	assert_int_equal(config.synic, HV_SYNIC_AUTO);
	assert_int_equal(PARSE("--kernel", "k", "--hyperv=synic=user"), 0);
	assert_true(config.hyperv);
	assert_int_equal(config.synic, HV_SYNIC_USER);
	assert_int_equal(PARSE("--kernel", "k", "--hyperv", "synic=kvm", "--vmbus"), 0);
	assert_true(config.vmbus);
	assert_int_equal(config.synic, HV_SYNIC_KVM);
	assert_int_equal(config.hv_timers, HV_TIMERS_AUTO);
	assert_int_equal(PARSE("--kernel", "k", "--hyperv", "synic=user,timers=on"), 0);
	assert_int_equal(config.synic, HV_SYNIC_USER);
	assert_int_equal(config.hv_timers, HV_TIMERS_ON);
	assert_int_equal(PARSE("--kernel", "k", "--hyperv", "synic=user,timers=on", "--hyperv", "timers=off"), 0);
	assert_int_equal(config.synic, HV_SYNIC_AUTO);
	assert_int_equal(config.hv_timers, HV_TIMERS_OFF);
	assert_int_equal(PARSE("--kernel", "k", "--hyperv", "synic=user,"), -EINVAL);
	assert_int_equal(PARSE("--kernel", "k", "--hyperv", "timers"), -EINVAL);
	assert_non_null(strstr(err, "timers=on|off"));
	assert_int_equal(PARSE("--kernel", "k", "--vmbus"), 0);
	assert_true(config.hyperv);
	assert_true(config.vmbus);
	assert_int_equal(config.synic, HV_SYNIC_AUTO);
}

static void actions_need_no_kernel(void **state)
{
	(void)state;
	assert_int_equal(PARSE("--help"), 0);
	assert_int_equal(config.action, ACTION_HELP);
	assert_int_equal(PARSE("-h"), 0);
	assert_int_equal(config.action, ACTION_HELP);
	assert_int_equal(PARSE("--version", "--nonsense"), 0);
	assert_int_equal(config.action, ACTION_VERSION);
	assert_int_equal(PARSE("--check-host"), 0);
	assert_int_equal(config.action, ACTION_CHECK_HOST);
	assert_int_equal(PARSE("--trace", "help"), 0);
	assert_int_equal(config.action, ACTION_TRACE_HELP);
}

static void mistakes_are_named(void **state)
{
	static const char *const bad[][4] = {
		{ "vmm", "bzImage", NULL },
		{ "vmm", "--kern", "k", NULL },
		{ "vmm", "--kernel", NULL },
		{ "vmm", "--kernel", "", NULL },
		{ "vmm", "--no-reboot=yes", NULL },
		{ "vmm", "--cpus", "0", NULL },
		{ "vmm", "--cpus", "255", NULL },
		{ "vmm", "--cpus", "-1", NULL },
		{ "vmm", "--cpus", "2x", NULL },
		{ "vmm", "--cpus", "99999999999999999999", NULL },
		{ "vmm", "--memory", "31M", NULL },
		{ "vmm", "--memory", "33M", NULL },
		{ "vmm", "--memory", "99999999T", NULL },
		{ "vmm", "--memory", "-5G", NULL },
		{ "vmm", "--memory", "5GB", NULL },
		{ "vmm", "--memory", "1G,huge=on", NULL },
		{ "vmm", "--memory", "1G,", NULL },
		{ "vmm", "--serial", "pty", NULL },
		{ "vmm", "--serial", "file:", NULL },
		{ "vmm", "--boot", "pxe", NULL },
		{ "vmm", "--timeout", "0", NULL },
		{ "vmm", "--timeout", "inf", NULL },
		{ "vmm", "--timeout", "1e99", NULL },
		{ "vmm", "--timeout", "-1", NULL },
		{ "vmm", "--device", "nvme", NULL },
		{ "vmm", "--hyperv", NULL },
		{ "vmm", "--hyperv", "synic", NULL },
		{ "vmm", "--hyperv", "synic=qemu", NULL },
		{ "vmm", "--hyperv", "auto", NULL },
		{ "vmm", "--vmbus=on", NULL },
		{ "vmm", "--", NULL },
		{ "vmm", "", NULL },
		{ "vmm", NULL },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(bad); i++) {
		const char *argv[5] = { NULL };

		memcpy(argv, bad[i], sizeof(bad[i]));
		assert_int_equal(parse(argv), -EINVAL);
		assert_true(strlen(err) > 10);
		assert_null(strchr(err, '\n'));
	}
}

static void sizes(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes; /* 0: refused */
	} cases[] = {
		{ "1", 1 << 20 },     { "64K", 64 << 10 }, { "2m", 2 << 20 }, { "3G", 3ULL << 30 },
		{ "4T", 4ULL << 40 }, { "", 0 },	   { "G", 0 },	      { "1P", 0 },
		{ " 1", 0 },	      { "+1", 0 },	   { "0x10", 0 },     { "18446744073709551615", 0 },
		{ "1GG", 0 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		uint64_t bytes = 0;

		assert_int_equal(parse_size(cases[i].text, &bytes), cases[i].bytes ? 0 : -EINVAL);
		assert_int_equal(bytes, cases[i].bytes);
	}
}

static void too_many_traces(void **state)
{
	const char *argv[2 * MAX_TRACES + 4] = { "vmm" };

	(void)state;
	for (int i = 0; i <= MAX_TRACES; i++) {
		argv[1 + 2 * i] = "--trace";
		argv[2 + 2 * i] = "*";
	}
	assert_int_equal(parse(argv), -EINVAL);
	assert_non_null(strstr(err, "--trace"));
}

static void host_items(void **state)
{
	static char key[KVP_KEY_MAX + 8], value[KVP_VALUE_MAX + 8];
	const char *argv[2 * MAX_KVP + 4] = { "vmm" };

	(void)state;
	assert_int_equal(PARSE("--kernel", "k", "--vmbus", "--kvp", "a=b", "--kvp=c=d=e", "--kvp", "none="), 0);
	assert_int_equal(config.nr_kvp, 3);
	assert_string_equal(config.kvp[1], "c=d=e");
	assert_int_equal(PARSE("--kernel", "k", "--kvp", "a=b"), -EINVAL);
	assert_string_equal(err, "--kvp needs --vmbus");
	assert_int_equal(PARSE("--kernel", "k", "--kvp", "a"), -EINVAL);
	assert_int_equal(PARSE("--kernel", "k", "--kvp", "=a"), -EINVAL);
	assert_int_equal(PARSE("--kernel", "k", "--kvp", "a=\xff"), -EINVAL);
	assert_non_null(strstr(err, "value is not UTF-8"));
	assert_int_equal(PARSE("--kernel", "k", "--kvp", "\xc3=a"), -EINVAL);
	assert_non_null(strstr(err, "key is not UTF-8"));

	/* The longest that are taken, and one more. */
	memset(key, 'k', 255);
	strcpy(key + 255, "=v");
	assert_int_equal(PARSE("--kernel", "k", "--vmbus", "--kvp", key), 0);
	memset(key, 'k', 256);
	strcpy(key + 256, "=v");
	assert_int_equal(PARSE("--kernel", "k", "--kvp", key), -EINVAL);
	memset(key, 'k', KVP_KEY_MAX);
	strcpy(key + KVP_KEY_MAX, "=v");
	assert_int_equal(PARSE("--kernel", "k", "--kvp", key), -EINVAL);
	assert_non_null(strstr(err, "key is longer"));
	memcpy(value, "k=", 2);
	memset(value + 2, 'v', 1023);
	assert_int_equal(PARSE("--kernel", "k", "--vmbus", "--kvp", value), 0);
	value[2 + 1023] = 'v';
	assert_int_equal(PARSE("--kernel", "k", "--kvp", value), -EINVAL);
	assert_non_null(strstr(err, "value is longer"));

	for (int i = 0; i <= MAX_KVP; i++) {
		argv[1 + 2 * i] = "--kvp";
		argv[2 + 2 * i] = "k=v";
	}
	assert_int_equal(parse(argv), -EINVAL);
	assert_non_null(strstr(err, "more than"));
}

static void ivshmem_good(void **state)
{
	struct ivshmem_options o;

	(void)state;
	assert_int_equal(PARSE("--kernel", "k", "--ivshmem", "path=/dev/shm/a=b,size=16M", "--ivshmem=socket=s"), 0);
	assert_int_equal(config.nr_ivshmem, 2);
	assert_string_equal(config.ivshmem[1], "socket=s");
	assert_int_equal(ivshmem_parse(config.ivshmem[0], &o, err, sizeof(err)), 0);
	assert_string_equal(o.path, "/dev/shm/a=b");
	assert_string_equal(o.socket, "");
	assert_int_equal(o.size, 16 << 20);
	assert_false(o.readonly);
	assert_true(o.msi); /* which makes it revision 1 */
	assert_int_equal(ivshmem_parse("readonly=on,size=64T,path=x", &o, err, sizeof(err)), 0);
	assert_true(o.readonly);
	assert_int_equal(o.size, IVSHMEM_SIZE_MAX);
	assert_int_equal(ivshmem_parse("socket=s", &o, err, sizeof(err)), 0);
	assert_int_equal(o.vectors, 1);
	assert_true(o.ioeventfd && o.msi);
	assert_int_equal(ivshmem_parse("msi=off,ioeventfd=off,vectors=1024,socket=s", &o, err, sizeof(err)), 0);
	assert_string_equal(o.socket, "s");
	assert_int_equal(o.vectors, IVSHMEM_VECTORS_MAX);
	assert_false(o.ioeventfd || o.msi);
}

static void ivshmem_mistakes(void **state)
{
	static const struct {
		const char *value, *why;
	} bad[] = {
		{ "", "empty" },
		{ "path=x", "needs size=" },
		{ "size=4K", "needs either" },
		{ "readonly=on", "needs either" },
		{ "path=x,size=4K,socket=s", "needs either" },
		{ "path=x,size=0", "power of two" },
		{ "path=x,size=2K", "power of two" },
		{ "path=x,size=12K", "power of two" },
		{ "path=x,size=128T", "power of two" },
		{ "path=x,size=-4K", "power of two" },
		{ "path=x,size=", "power of two" },
		{ "path=,size=4K", "path= takes 1 to 255 bytes" },
		{ "path=x,size=4K,readonly=yes", "on or off" },
		{ "path=x,size=4K,readonly", "readonly= takes on or off" },
		{ "path=x,size=4K,path=y", "twice" },
		{ "path=x,size=4K,vectors=1", "vectors= does not go with path=" },
		{ "path=x,size=4K,ioeventfd=on", "ioeventfd= does not go with path=" },
		{ "path=x,size=4K,msi=on", "msi= does not go with path=" },
		{ "socket=s,size=4K", "size= does not go with socket=" },
		{ "socket=s,readonly=off", "readonly= does not go with socket=" },
		{ "socket=", "socket= takes 1 to 107 bytes" },
		{ "socket=s,vectors=0", "1 to 1024" },
		{ "socket=s,vectors=1025", "1 to 1024" },
		{ "socket=s,vectors=-1", "1 to 1024" },
		{ "socket=s,vectors=2x", "1 to 1024" },
		{ "socket=s,vectors=99999999999999999999", "1 to 1024" },
		{ "socket=s,msi=", "on or off" },
		{ "socket=s,Msi=on", "none of" },
		{ "socket=s,", "none of" },
		{ ",socket=s", "none of" },
	};
	const char *argv[2 * (IVSHMEM_MAX + 1) + 4] = { "vmm", "--kernel", "k" };
	char text[1100] = "path=";

	(void)state;
	for (size_t i = 0; i < COUNT(bad); i++) {
		assert_int_equal(PARSE("--kernel", "k", "--ivshmem", bad[i].value), -EINVAL);
		assert_ptr_equal(strstr(err, "--ivshmem"), err);
		assert_null(strchr(err, '\n'));
		if (!strstr(err, bad[i].why))
			fail_msg("--ivshmem '%s': %s", bad[i].value, err);
	}
	/* The longest names, one more, and more than any value may have. */
	memset(text + 5, 'x', 256);
	strcpy(text + 5 + 255, ",size=4K");
	assert_int_equal(PARSE("--kernel", "k", "--ivshmem", text), 0);
	strcpy(text + 5 + 256, ",size=4K");
	text[5 + 255] = 'x';
	assert_int_equal(PARSE("--kernel", "k", "--ivshmem", text), -EINVAL);
	assert_non_null(strstr(err, "1 to 255"));
	memcpy(text, "socket=", 7);
	memset(text + 7, 'x', 108);
	text[7 + 107] = '\0';
	assert_int_equal(PARSE("--kernel", "k", "--ivshmem", text), 0);
	strcpy(text + 7 + 107, "x");
	assert_int_equal(PARSE("--kernel", "k", "--ivshmem", text), -EINVAL);
	assert_non_null(strstr(err, "1 to 107"));
	memset(text, ',', sizeof(text) - 1);
	assert_int_equal(PARSE("--kernel", "k", "--ivshmem", text), -EINVAL);
	assert_non_null(strstr(err, "longer than"));

	for (int i = 0; i <= IVSHMEM_MAX; i++) {
		argv[3 + 2 * i] = "--ivshmem";
		argv[4 + 2 * i] = "socket=s";
	}
	assert_int_equal(parse(argv), -EINVAL);
	assert_non_null(strstr(err, "more than 16 times"));
	argv[3 + 2 * IVSHMEM_MAX] = NULL;
	assert_int_equal(parse(argv), 0);
}

static void msrs_and_clock(void **state)
{
	(void)state;
	assert_int_equal(PARSE("--kernel", "k"), 0);
	assert_int_equal(config.msr, MSR_HOST);
	assert_int_equal(config.rtc, RTC_UTC);
	assert_int_equal(PARSE("--kernel", "k", "--msr", "ignore", "--rtc=local"), 0);
	assert_int_equal(config.msr, MSR_IGNORE);
	assert_int_equal(config.rtc, RTC_LOCAL);
	assert_int_equal(PARSE("--kernel", "k", "--msr=fault", "--rtc", "local", "--rtc", "utc"), 0);
	assert_int_equal(config.msr, MSR_FAULT);
	assert_int_equal(config.rtc, RTC_UTC);
	assert_int_equal(PARSE("--kernel", "k", "--msr", "ignored"), -EINVAL);
	assert_non_null(strstr(err, "--msr ignored: must be ignore or fault"));
	assert_int_equal(PARSE("--kernel", "k", "--rtc", "localtime"), -EINVAL);
	assert_non_null(strstr(err, "--rtc localtime: must be utc or local"));
}

static void vhost_user_good(void **state)
{
	struct vhost_user_options o;

	(void)state;
	assert_int_equal(
		PARSE("--kernel", "k", "--vhost-user", "socket=a,device=fs", "--vhost-user=device=63,socket=b"), 0);
	assert_int_equal(config.nr_vhost_user, 2);
	assert_string_equal(config.vhost_user[0].socket, "a");
	assert_int_equal(config.vhost_user[0].id, 26);
	assert_false(config.vhost_user[0].generic);
	assert_int_equal(config.vhost_user[1].id, 63);
	assert_true(config.vhost_user[1].generic);
	assert_int_equal(vhost_user_parse("socket=s,device=blk", &o, err, sizeof(err)), 0);
	assert_int_equal(o.id, 2);
	assert_int_equal(o.queues, 0);
	assert_int_equal(o.queue_size, 256);
	assert_int_equal(o.timeout_ms, 1000);
	assert_int_equal(o.config_size, -1);
	assert_false(o.reconnect || o.inband || o.has_mac || o.mtu || o.tag[0]);
	assert_int_equal(vhost_user_parse("device=2,queues=256,queue-size=1024,timeout=600000,reconnect=on,inband=on,"
					  "config-size=256,socket=s",
					  &o, err, sizeof(err)),
			 0);
	assert_true(o.generic && o.reconnect && o.inband);
	assert_int_equal(o.id, 2);
	assert_int_equal(o.queues, 256);
	assert_int_equal(o.queue_size, 1024);
	assert_int_equal(o.timeout_ms, 600000);
	assert_int_equal(o.config_size, 256);
	assert_int_equal(
		vhost_user_parse("socket=s,device=net,queues=1,mac=52:54:00:12:34:ff,mtu=65535", &o, err, sizeof(err)),
		0);
	assert_int_equal(o.id, 1);
	assert_true(o.has_mac);
	assert_memory_equal(o.mac, "\x52\x54\x00\x12\x34\xff", 6);
	assert_int_equal(o.mtu, 65535);
	assert_int_equal(vhost_user_parse("socket=s,device=fs,tag=t,queues=255", &o, err, sizeof(err)), 0);
	assert_string_equal(o.tag, "t");
}

static void vhost_user_mistakes(void **state)
{
	static const struct {
		const char *value, *why;
	} bad[] = {
		{ "", "empty" },
		{ "socket=s", "needs socket=PATH,device=" },
		{ "device=fs", "needs socket=PATH,device=" },
		{ "socket=,device=fs", "socket= takes 1 to 107 bytes" },
		{ "socket=s,device=", "device= takes fs, blk, net" },
		{ "socket=s,device=0", "device= takes fs, blk, net" },
		{ "socket=s,device=64", "device= takes fs, blk, net" },
		{ "socket=s,device=-1", "device= takes fs, blk, net" },
		{ "socket=s,device=0x1a", "device= takes fs, blk, net" },
		{ "socket=s,device=FS", "device= takes fs, blk, net" },
		{ "socket=s,device=blk,device=fs", "twice" },
		{ "socket=s,socket=t,device=blk", "twice" },
		{ "socket=s,device=blk,queues=0", "1 to 256" },
		{ "socket=s,device=blk,queues=257", "1 to 256" },
		{ "socket=s,device=blk,queues=-1", "1 to 256" },
		{ "socket=s,device=blk,queues=4294967297", "1 to 256" },
		{ "socket=s,device=blk,queues=99999999999999999999", "1 to 256" },
		{ "socket=s,device=blk,queues=2x", "1 to 256" },
		{ "socket=s,device=blk,queues", "1 to 256" },
		{ "socket=s,device=fs,queues=256", "less than 256" },
		{ "socket=s,device=net,queues=2", "one pair" },
		{ "socket=s,device=blk,queue-size=0", "power of two from 2 to 1024" },
		{ "socket=s,device=blk,queue-size=1", "power of two from 2 to 1024" },
		{ "socket=s,device=blk,queue-size=3", "power of two from 2 to 1024" },
		{ "socket=s,device=blk,queue-size=2048", "power of two from 2 to 1024" },
		{ "socket=s,device=blk,timeout=0", "1 to 600000" },
		{ "socket=s,device=blk,timeout=600001", "1 to 600000" },
		{ "socket=s,device=blk,timeout=1s", "1 to 600000" },
		{ "socket=s,device=blk,reconnect=yes", "on or off" },
		{ "socket=s,device=blk,inband=", "on or off" },
		{ "socket=s,device=60,config-size=257", "0 to 256" },
		{ "socket=s,device=60,config-size=-1", "0 to 256" },
		{ "socket=s,device=fs,tag=", "tag= takes 1 to 36 bytes" },
		{ "socket=s,device=fs,tag=1234567890123456789012345678901234567", "tag= takes 1 to 36 bytes" },
		{ "socket=s,device=blk,tag=t", "tag= does not go with this device=" },
		{ "socket=s,tag=t,device=26", "tag= does not go with this device=" },
		{ "socket=s,device=fs,mac=52:54:00:12:34:56", "mac= does not go with this device=" },
		{ "socket=s,device=1,mtu=1500", "mtu= does not go with this device=" },
		{ "socket=s,device=net,mac=53:54:00:12:34:56", "the address of one card" },
		{ "socket=s,device=net,mac=00:00:00:00:00:00", "the address of one card" },
		{ "socket=s,device=net,mac=52:54:00:12:34", "the address of one card" },
		{ "socket=s,device=net,mac=52:54:00:12:34:567", "the address of one card" },
		{ "socket=s,device=net,mtu=67", "68 to 65535" },
		{ "socket=s,device=net,mtu=65536", "68 to 65535" },
		{ "socket=s,device=blk,path=p", "none of" },
		{ "Socket=s,device=blk", "none of" },
		{ "socket=s,device=blk,", "none of" },
		{ ",socket=s,device=blk", "none of" },
		{ "on", "none of" },
	};
	const char *argv[2 * (VHOST_USER_MAX + 1) + 4] = { "vmm", "--kernel", "k" };
	char text[1100] = "device=blk,socket=";

	(void)state;
	for (size_t i = 0; i < COUNT(bad); i++) {
		assert_int_equal(PARSE("--kernel", "k", "--vhost-user", bad[i].value), -EINVAL);
		assert_ptr_equal(strstr(err, "--vhost-user"), err);
		assert_null(strchr(err, '\n'));
		if (!strstr(err, bad[i].why))
			fail_msg("--vhost-user '%s': %s", bad[i].value, err);
	}
	assert_int_equal(PARSE("--kernel", "k", "--vhost-user"), -EINVAL);
	/* The longest name, one more, and more than any value may have. */
	memset(text + 18, 'x', 107);
	assert_int_equal(PARSE("--kernel", "k", "--vhost-user", text), 0);
	text[18 + 107] = 'x';
	assert_int_equal(PARSE("--kernel", "k", "--vhost-user", text), -EINVAL);
	assert_non_null(strstr(err, "1 to 107"));
	memset(text, ',', sizeof(text) - 1);
	assert_int_equal(PARSE("--kernel", "k", "--vhost-user", text), -EINVAL);
	assert_non_null(strstr(err, "longer than"));

	for (int i = 0; i <= VHOST_USER_MAX; i++) {
		argv[3 + 2 * i] = "--vhost-user";
		argv[4 + 2 * i] = "socket=s,device=blk";
	}
	assert_int_equal(parse(argv), -EINVAL);
	assert_non_null(strstr(err, "more than 16 times"));
	argv[3 + 2 * VHOST_USER_MAX] = NULL;
	assert_int_equal(parse(argv), 0);
	assert_int_equal(config.nr_vhost_user, VHOST_USER_MAX);
}

static void firmware_and_nvram(void **state)
{
	(void)state;
	assert_int_equal(PARSE("--firmware", "f", "--nvram=n"), 0);
	assert_string_equal(config.firmware, "f");
	assert_string_equal(config.nvram, "n");
	assert_null(config.kernel);
	assert_int_equal(PARSE("--firmware", "f", "--kernel", "k", "--initrd", "i", "--cmdline", "c"), 0);
	assert_int_equal(PARSE("--kernel", "k", "--nvram", "n"), -EINVAL);
	assert_string_equal(err, "--nvram needs --firmware");
	assert_int_equal(PARSE("--firmware", "f", "--kernel", "k", "--boot", "host"), -EINVAL);
	assert_string_equal(err, "--boot cannot be used with --firmware, which boots the kernel itself");
	assert_int_equal(PARSE("--firmware", "f", "--initrd", "i"), -EINVAL);
	assert_string_equal(err, "--initrd needs --kernel");
	assert_int_equal(PARSE("--firmware", "f", "--cmdline", "c"), -EINVAL);
	assert_string_equal(err, "--cmdline needs --kernel");
	assert_int_equal(PARSE("--firmware"), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),
		cmocka_unit_test(values_by_equals_or_by_space),
		cmocka_unit_test(hyperv_and_its_synic),
		cmocka_unit_test(actions_need_no_kernel),
		cmocka_unit_test(mistakes_are_named),
		cmocka_unit_test(sizes),
		cmocka_unit_test(too_many_traces),
		cmocka_unit_test(host_items),
		cmocka_unit_test(ivshmem_good),
		cmocka_unit_test(ivshmem_mistakes),
		cmocka_unit_test(vhost_user_good),
		cmocka_unit_test(vhost_user_mistakes),
		cmocka_unit_test(firmware_and_nvram),
		cmocka_unit_test(msrs_and_clock),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
