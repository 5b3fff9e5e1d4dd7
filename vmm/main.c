/* SPDX-License-Identifier: MIT */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices/ivshmem/ivshmem.h"
#include "vmm/checkhost.h"
#include "vmm/ctl.h"
#include "vmm/fdt.h"
#include "vmm/log.h"
#include "vmm/options.h"
#include "vmm/terminal.h"
#include "vmm/trace.h"
#include "vmm/vm.h"

static int enable_traces(const struct config *config)
{
	char err[256];

	if (config->nr_traces)
		terminal_fill_descriptors();
	for (unsigned int i = 0; i < config->nr_traces; i++) {
		int ret = trace_enable(config->traces[i], err, sizeof(err));

		if (ret) {
			log_line("--trace %s: %s", config->traces[i], err);
			return ret;
		}
	}
	return 0;
}

/* A run that a signal ended ends the process by that signal, as a shell or a supervisor expects. */
static void die_by(int sig)
{
	sigset_t set;

	signal(sig, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, sig);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	raise(sig);
}

static int run(const struct config *config, uint64_t start_ns)
{
	int status = STATUS_HOST_FAILURE, sig = 0;
	struct vm *vm;

	if (enable_traces(config)) {
		trace_close();
		return status;
	}
	vm = malloc(sizeof(*vm));
	if (!vm) {
		log_line("out of memory");
		return status;
	}
	if (vm_create(vm, config, start_ns) == 0) {
		if (config->dump_dtb && machine_dump_fdt(vm, config->dump_dtb))
			status = STATUS_HOST_FAILURE;
		else
			status = config->kernel || config->firmware ? vm_run(vm) : STATUS_OK;
		sig = vm->end_signal;
	}
	vm_destroy(vm);
	trace_close();
	free(vm);
	if (sig)
		die_by(sig);
	return status;
}

int main(int argc, char **argv)
{
	uint64_t start_ns = clock_ns();
	struct config config;
	char err[256];

	if (argc > 1 && !strcmp(argv[1], "ctl"))
		return ctl_main(argc - 1, argv + 1);
	if (argc > 1 && !strcmp(argv[1], "ivshmem-server"))
		return ivshmem_server_main(argc - 1, argv + 1);
	if (options_parse(argc, argv, &config, err, sizeof(err))) {
		log_line("%s", err);
		return STATUS_HOST_FAILURE;
	}
	switch (config.action) {
	case ACTION_HELP:
		options_print_help();
		return STATUS_OK;
	case ACTION_VERSION:
		puts("vmm " VMM_VERSION);
		return STATUS_OK;
	case ACTION_TRACE_HELP:
		trace_list();
		return STATUS_OK;
	case ACTION_CHECK_HOST:
		return check_host();
	case ACTION_RUN:
		break;
	}
	return run(&config, start_ns);
}
