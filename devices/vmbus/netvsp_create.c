/* SPDX-License-Identifier: MIT */
/* --net: cards of the machine, the commands about them and their figures. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "devices/net/net.h"
#include "devices/vmbus/netvsp.h"
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

static int create(struct vm *vm, unsigned int number)
{
	const struct net_options *options = &vm->config->nets[number];
	struct net_backend *net;
	uint8_t mac[6];
	int ret = 0;

	memcpy(mac, options->mac, sizeof(mac));
	if (!options->has_mac)
		ret = random_mac(mac);
	if (ret) {
		log_line("--net: no random address: %s", strerror(-ret));
		return ret;
	}
	net = net_open(&vm->loop, options);
	if (!net)
		return -EIO;
	vm->nets[number] = netvsp_add(vm->vmbus, net, number, mac, options->queues);
	if (vm->nets[number])
		return 0;
	net->ops->destroy(net);
	log_line("--net: %s", strerror(ENOMEM));
	return -ENOMEM;
}

int netvsp_create_all(struct vm *vm)
{
	int ret = 0;

	for (unsigned int i = 0; i < vm->config->nr_nets && !ret; i++)
		ret = create(vm, i);
	return ret;
}

static void set_link(struct control_request *request, const struct vm *vm, bool up)
{
	int64_t number = control_number(request, "net", 0);

	if (number < 0 || number >= (int64_t)vm->config->nr_nets) {
		control_fail(request, "there is no --net number %lld", (long long)number);
		return;
	}
	netvsp_set_link(vm->nets[number], up);
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

static json_t *card_object(const struct vm *vm, unsigned int number)
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
	const char *stats = (const char *)netvsp_get_stats(vm->nets[number]);
	json_t *card = json_object();
	char text[40];

	net_describe(&vm->config->nets[number], text, sizeof(text));
	json_object_set_new(card, "net", json_integer(number));
	json_object_set_new(card, "backend", json_string(text));
	json_object_set_new(card, "link", json_string(netvsp_link(vm->nets[number]) ? "up" : "down"));
	for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++) {
		uint64_t value;

		memcpy(&value, stats + counters[i].offset, sizeof(value));
		json_object_set_new(card, counters[i].name, json_integer((json_int_t)value));
	}
	return card;
}

json_t *netvsp_stats(const struct vm *vm)
{
	json_t *cards = json_array();

	for (unsigned int i = 0; i < vm->config->nr_nets; i++)
		if (vm->nets[i])
			json_array_append_new(cards, card_object(vm, i));
	return cards;
}

static void fill_status(json_t *status, void *opaque)
{
	json_object_set_new(status, "net", netvsp_stats(opaque));
}

#define NET_ARGUMENT                                                                                                   \
	{                                                                                                              \
		.name = "net", .kind = CONTROL_NUMBER, .help = "which --net, in their order from 0 on (0)"             \
	}

static const struct control_command commands[] = {
	{ .name = "net-down", .help = "takes a card's link down", .run = run_down, .arguments = { NET_ARGUMENT } },
	{ .name = "net-up", .help = "brings a card's link up", .run = run_up, .arguments = { NET_ARGUMENT } },
};

int netvsp_control_add(struct vm *vm)
{
	int ret;

	if (!vm->config->nr_nets)
		return 0;
	ret = control_add(vm->control, commands, sizeof(commands) / sizeof(commands[0]), vm);
	if (!ret)
		ret = control_add_status(vm->control, fill_status, vm);
	if (ret)
		log_line("--control: %s", strerror(-ret));
	return ret;
}
