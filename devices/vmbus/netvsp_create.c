/* SPDX-License-Identifier: MIT */
/* --net: cards of the machine, the commands about them and their figures. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "devices/net/net.h"
#include "devices/vmbus/netvsp_internal.h"
#include "vmm/control.h"
#include "vmm/log.h"
#include "vmm/options.h"
#include "vmm/vm.h"

/* Of this run only, locally administered: two machines on one network do not get in each other's way. */
static int random_mac(uint8_t mac[6])
{
	if (getrandom(mac, 6, 0) != 6)
		return -EIO;
	mac[0] = (uint8_t)((mac[0] & 0xfc) | 2);
	return 0;
}

static struct netvsp *create(struct vm *vm, unsigned int number)
{
	const struct net_options *options = &vm->config->nets[number];
	struct net_backend *net;
	struct netvsp *dev;
	uint8_t mac[6];
	int ret = 0;

	memcpy(mac, options->mac, sizeof(mac));
	if (!options->has_mac)
		ret = random_mac(mac);
	if (ret) {
		log_line("--net: no random address: %s", strerror(-ret));
		return NULL;
	}
	net = net_open(&vm->loop, options);
	if (!net)
		return NULL;
	dev = netvsp_add(vm->vmbus, net, number, mac, options->queues);
	if (dev)
		return dev;
	net->ops->destroy(net);
	log_line("--net: %s", strerror(ENOMEM));
	return NULL;
}

/* ---- Commands and figures; opaque is the first card of the machine ---- */

static void set_link(struct control_request *request, struct netvsp *dev, bool up)
{
	int64_t number = control_number(request, "net", 0);

	while (dev && number != dev->number)
		dev = dev->next;
	if (!dev) {
		control_fail(request, "there is no --net number %lld", (long long)number);
		return;
	}
	netvsp_set_link(dev, up);
	control_answer(request, NULL);
}

static void run_down(struct control_request *request, void *opaque)
{
	set_link(request, opaque, false);
}

static void run_up(struct control_request *request, void *opaque)
{
	set_link(request, opaque, true);
}

static json_t *card_object(const struct netvsp *dev)
{
	static const struct {
		const char *name;
		size_t offset;
	} counters[] = {
#define COUNTER(name) { #name, offsetof(struct netvsp_stats, name) }
		COUNTER(rx_frames),  COUNTER(rx_bytes),	  COUNTER(rx_dropped), COUNTER(rx_filtered), COUNTER(rx_errors),
		COUNTER(rx_stalls),  COUNTER(rx_packets), COUNTER(rx_calls),   COUNTER(tx_frames),   COUNTER(tx_bytes),
		COUNTER(tx_dropped), COUNTER(tx_errors),  COUNTER(tx_calls),   COUNTER(tx_segments), COUNTER(strays),
#undef COUNTER
	};
	const char *stats = (const char *)netvsp_get_stats(dev);
	json_t *card = json_object();

	json_object_set_new(card, "net", json_integer(dev->number));
	json_object_set_new(card, "backend", json_string(dev->net->name));
	json_object_set_new(card, "link", json_string(netvsp_link(dev) ? "up" : "down"));
	for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++) {
		uint64_t value;

		memcpy(&value, stats + counters[i].offset, sizeof(value));
		json_object_set_new(card, counters[i].name, json_integer((json_int_t)value));
	}
	return card;
}

static json_t *cards(void *opaque)
{
	json_t *array = json_array();

	for (const struct netvsp *dev = opaque; dev; dev = dev->next)
		json_array_append_new(array, card_object(dev));
	return array;
}

static void fill_status(json_t *status, void *opaque)
{
	json_object_set_new(status, "net", cards(opaque));
}

#define NET_ARGUMENT                                                                                                   \
	{                                                                                                              \
		.name = "net", .kind = CONTROL_NUMBER, .help = "which --net, in their order from 0 on (0)"             \
	}

static const struct control_command commands[] = {
	{ .name = "net-down", .help = "takes a card's link down", .run = run_down, .arguments = { NET_ARGUMENT } },
	{ .name = "net-up", .help = "brings a card's link up", .run = run_up, .arguments = { NET_ARGUMENT } },
};

static int add_commands(struct vm *vm, struct netvsp *first)
{
	int ret = control_add(vm->control, commands, sizeof(commands) / sizeof(commands[0]), first);

	if (!ret)
		ret = control_add_status(vm->control, fill_status, first);
	if (ret)
		log_line("--control: %s", strerror(-ret));
	return ret;
}

int netvsp_create_all(struct vm *vm)
{
	struct netvsp *first = NULL, **next = &first;
	int ret;

	for (unsigned int i = 0; i < vm->config->nr_nets; i++) {
		*next = create(vm, i);
		if (!*next)
			return -EIO;
		next = &(*next)->next;
	}
	ret = stats_add(vm, "net", cards, first);
	if (ret)
		log_line("--net: %s", strerror(-ret));
	return ret ? ret : add_commands(vm, first);
}
