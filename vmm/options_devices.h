/* SPDX-License-Identifier: MIT */
/* The options of devices and of what they hand to the guest; options.c has those of the machine, and the table. */
#ifndef VMM_OPTIONS_DEVICES_H
#define VMM_OPTIONS_DEVICES_H

#include <stddef.h>

#include "vmm/options.h"

struct options_parser {
	struct config *config;
	char *err;
	size_t errlen;
};

/* Writes the sentence to err. Returns -EINVAL. */
int options_fail(struct options_parser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Each takes the value of one "--name value", which has to live as long as the configuration. 0 or -EINVAL. */
int options_set_device(struct options_parser *p, const char *value);
int options_set_disk(struct options_parser *p, const char *value);
int options_set_ivshmem(struct options_parser *p, const char *value);
int options_set_kvp(struct options_parser *p, const char *value);
int options_set_net(struct options_parser *p, const char *value);
int options_set_vfio_user(struct options_parser *p, const char *value);
int options_set_vhost_user(struct options_parser *p, const char *value);

#endif
