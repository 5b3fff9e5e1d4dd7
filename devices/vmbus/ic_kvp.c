/* SPDX-License-Identifier: MIT */
/*
 * Data exchange ("key-value pairs"). The guest keeps four pools of named values (Linux: hv_kvp_daemon, in files of
 * /var/lib/hyperv; Windows: in the registry); the host asks for single values, or goes through a pool by index until
 * the guest says that there is no more.
 *
 * Orders wait in a queue; the one at its head is "current" and takes one request or, to list a pool, one for each
 * item. The items of --kvp are orders as well, given each time the service comes up: a guest that was reset, or whose
 * driver was loaded anew, may have lost them. A guest that refuses them may bring the service up as often as it likes,
 * so only so many failures are told.
 *
 * Linux up to 6.1 at least answers GET with success and an empty value for every key that exists (its driver passes
 * the size of the value on as 0), and with a failure for the pool AUTO, which has no file. So an empty value, or none,
 * is looked for once more by going through the pool.
 *
 * Hyper-V's management interface only lets a host set strings, so numbers are understood but never written.
 *
 * Wire structures: Linux include/uapi/linux/hyperv.h, struct hv_kvp_msg and what it contains. The versions 3.0 to 5.0
 * differ in what concerns addresses only, which is not used here.
 */
#include "devices/vmbus/ic_kvp.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices/vmbus/ic.h"
#include "vmm/log.h"
#include "vmm/options.h"
#include "vmm/utf16.h"
#include "vmm/vm.h"

#define NAME	 "kvp"
#define RETRY_NS 1000000000ULL
#define TOLD_MAX 64 /* failures of --kvp, in a run */

/* enum hv_kvp_exchg_op */
enum { KVP_GET, KVP_SET, KVP_DELETE, KVP_ENUMERATE };

/* REG_* of the header; Windows has another number for 64 bits. */
enum { TYPE_SZ = 1, TYPE_EXPAND_SZ = 2, TYPE_U32 = 4, TYPE_U64 = 8, TYPE_QWORD = 11 };

struct kvp_value { /* struct hv_kvp_exchg_msg_value */
	uint32_t type;
	uint32_t key_size, value_size; /* bytes, terminator included */
	uint8_t key[KVP_KEY_MAX];
	uint8_t value[KVP_VALUE_MAX];
};

struct kvp_message { /* struct hv_kvp_msg */
	uint8_t operation, pool;
	uint16_t pad;
	union {
		struct kvp_value value; /* KVP_GET, KVP_SET */
		struct {
			uint32_t size;
			uint8_t key[KVP_KEY_MAX];
		} del;
		struct {
			uint32_t index;
			struct kvp_value value;
		} item; /* KVP_ENUMERATE */
	};
};
_Static_assert(sizeof(struct kvp_message) == 2580, "all but the address messages have 2580 bytes");

struct kvp_order {
	struct ic_order_head head;
	kvp_list_fn *list;	    /* instead of head.done */
	const char *given;	    /* the same: an item of --kvp */
	bool search;		    /* enumerate to find the key */
	bool exists;		    /* GET says so, although with an empty value */
	char key[KVP_KEY_MAX];	    /* UTF-8 */
	struct kvp_item *items;	    /* of a list */
	size_t nr_items, room;	    /* of items */
	struct kvp_message message; /* the next request */
};

struct kvp {
	struct ic ic;
	struct ic_orders orders;
	struct kvp_order *current;
	bool sent;	       /* current's request is under way */
	unsigned int told;     /* failures of --kvp */
	struct ic_timer retry; /* an abandoned request keeps the guest busy */
};

static const char nonsense[] = "the guest answered nonsense";

static void pump(struct kvp *kvp);

/* ---- Orders ---- */

static void free_order(struct kvp_order *order)
{
	for (size_t i = 0; i < order->nr_items; i++) {
		free(order->items[i].key);
		free(order->items[i].value);
	}
	free(order->items);
	free(order);
}

static void given(struct kvp *kvp, const char *item, int error, const char *text)
{
	/* A guest that went away gets it again when it is back. */
	if (!error || error == -ECONNRESET || kvp->told == TOLD_MAX)
		return;
	kvp->told++;
	log_line("--kvp %.*s: %s%s", (int)strcspn(item, "="), item, text,
		 kvp->told == TOLD_MAX ? "; no more is said of such failures" : "");
}

/* Ends the current order. The callback may give new ones, so whoever calls this looks at the state anew. */
static void finish(struct kvp *kvp, int error, const char *text)
{
	struct kvp_order *order = kvp->current;

	kvp->current = NULL;
	if (order->given)
		given(kvp, order->given, error, text);
	else if (order->list)
		order->list(order->head.opaque, error, text, error ? NULL : order->items, error ? 0 : order->nr_items);
	else
		order->head.done(order->head.opaque, error, text);
	free_order(order);
}

/* Adds an item to the order's list. False: no memory. */
static bool keep_item(struct kvp_order *order, const char *key, const char *value)
{
	struct kvp_item item;

	if (order->nr_items == order->room) {
		size_t room = order->room ? 2 * order->room : 16;
		struct kvp_item *items = reallocarray(order->items, room, sizeof(*items));

		if (!items)
			return false;
		order->items = items;
		order->room = room;
	}
	item.key = strdup(key);
	item.value = strdup(value);
	if (!item.key || !item.value) {
		free(item.key);
		free(item.value);
		return false;
	}
	order->items[order->nr_items++] = item;
	return true;
}

/* ---- Answers ---- */

/* The value as text. False if the guest's sizes or its type are wrong. */
static bool decode(const struct kvp_value *value, char *text, size_t room)
{
	uint64_t number = 0;
	size_t size;

	if (value->value_size > KVP_VALUE_MAX)
		return false;
	switch (value->type) {
	case TYPE_SZ:
	case TYPE_EXPAND_SZ:
		utf16_to_utf8(value->value, value->value_size, text, room);
		return true;
	case TYPE_U32:
		size = 4;
		break;
	case TYPE_U64:
	case TYPE_QWORD:
		size = 8;
		break;
	default:
		return false;
	}
	if (value->value_size < size)
		return false;
	memcpy(&number, value->value, size);
	snprintf(text, room, "%" PRIu64, number);
	return true;
}

/* From now on the order goes through its pool. */
static void enumerate(struct kvp_order *order)
{
	memset(&order->message.item, 0, sizeof(order->message.item));
	order->message.operation = KVP_ENUMERATE;
}

static void answered_get(struct kvp *kvp, int error, uint32_t status, const struct kvp_message *answer)
{
	struct kvp_order *order = kvp->current;
	char text[IC_TEXT_MAX], value[UTF16_TO_UTF8_ROOM(KVP_VALUE_MAX)];

	if (error) {
		error = ic_order_result(error, status, text);
		finish(kvp, error, text);
		return;
	}
	order->exists = status == IC_S_OK;
	if (order->exists && !decode(&answer->value, value, sizeof(value))) {
		finish(kvp, -EIO, nonsense);
	} else if (order->exists && value[0]) {
		finish(kvp, 0, value);
	} else {
		order->search = true;
		enumerate(order);
	}
}

/* There are no more items. */
static void end_of_pool(struct kvp *kvp)
{
	const struct kvp_order *order = kvp->current;

	if (order->list || order->exists)
		finish(kvp, 0, "");
	else
		finish(kvp, -ENOENT, "the guest has no such item");
}

static void answered_item(struct kvp *kvp, const struct kvp_value *item)
{
	struct kvp_order *order = kvp->current;
	char key[UTF16_TO_UTF8_ROOM(KVP_KEY_MAX)], value[UTF16_TO_UTF8_ROOM(KVP_VALUE_MAX)];

	if (item->key_size > KVP_KEY_MAX || !decode(item, value, sizeof(value))) {
		finish(kvp, -EIO, nonsense);
		return;
	}
	utf16_to_utf8(item->key, item->key_size, key, sizeof(key));
	if (order->message.item.index == KVP_ITEMS_MAX)
		finish(kvp, -E2BIG, "the guest has too many items");
	else if (order->search && !strcmp(key, order->key))
		finish(kvp, 0, value);
	else if (!order->search && !keep_item(order, key, value))
		finish(kvp, -ENOMEM, "out of memory");
	else
		order->message.item.index++;
}

static void answered_enumerate(struct kvp *kvp, int error, uint32_t status, const struct kvp_message *answer)
{
	char text[IC_TEXT_MAX];

	if (!error && status == IC_S_CONT) {
		end_of_pool(kvp);
		return;
	}
	error = ic_order_result(error, status, text);
	if (error)
		finish(kvp, error, text);
	else
		answered_item(kvp, &answer->item.value);
}

static void answered(struct ic *ic, int error, uint32_t status, const void *body, size_t size)
{
	struct kvp *kvp = (struct kvp *)ic;
	struct kvp_message answer = { 0 };
	char text[IC_TEXT_MAX];
	uint8_t operation = kvp->current->message.operation;
	/* A guest answers with the request's size. A failure may be short. */
	size_t need = operation == KVP_ENUMERATE ? sizeof(answer) : sizeof(answer) - sizeof(answer.item.index);

	kvp->sent = false;
	if (!error)
		memcpy(&answer, body, size < sizeof(answer) ? size : sizeof(answer));
	if (!error && status == IC_S_OK && (operation == KVP_GET || operation == KVP_ENUMERATE) && size < need) {
		finish(kvp, -EIO, nonsense);
	} else if (operation == KVP_GET) {
		answered_get(kvp, error, status, &answer);
	} else if (operation == KVP_ENUMERATE) {
		answered_enumerate(kvp, error, status, &answer);
	} else {
		error = ic_order_result(error, status, text);
		finish(kvp, error, text);
	}
	pump(kvp);
}

/* ---- Requests ---- */

/* Sends what can be sent. */
static void pump(struct kvp *kvp)
{
	char text[IC_TEXT_MAX];

	while (!kvp->sent) {
		int ret;

		if (!kvp->current)
			kvp->current = (struct kvp_order *)ic_orders_take(&kvp->orders);
		if (!kvp->current)
			return;
		ret = ic_request(&kvp->ic, &kvp->current->message, sizeof(kvp->current->message), IC_ORDER_TIMEOUT,
				 answered);
		if (ret == -EBUSY) {
			ic_timer_set(&kvp->retry, RETRY_NS);
			return;
		}
		kvp->sent = !ret;
		if (ret) {
			ret = ic_order_result(ret, 0, text);
			finish(kvp, ret, text);
		}
	}
}

/* Fills in what a message says of a key. 0 or -errno. */
static int put_key(struct kvp_order *order, const char *key, size_t length)
{
	struct kvp_message *m = &order->message;
	uint8_t *to = m->operation == KVP_DELETE ? m->del.key : m->value.key;
	int size;

	if (!length)
		return -EINVAL;
	if (length >= sizeof(order->key))
		return -ENAMETOOLONG;
	memcpy(order->key, key, length);
	size = utf16_from_utf8(order->key, to, KVP_KEY_MAX);
	if (size < 0)
		return size;
	if (m->operation == KVP_DELETE)
		m->del.size = (uint32_t)size;
	else
		m->value.key_size = (uint32_t)size;
	return 0;
}

static int put_value(struct kvp_order *order, const char *value)
{
	struct kvp_value *to = &order->message.value;
	int size = strlen(value) < KVP_VALUE_MAX ? utf16_from_utf8(value, to->value, KVP_VALUE_MAX) : -ENAMETOOLONG;

	if (size < 0)
		return size;
	to->type = TYPE_SZ;
	to->value_size = (uint32_t)size;
	return 0;
}

static struct kvp_order *new_order(uint8_t operation, unsigned int pool, void *opaque)
{
	struct kvp_order *order = calloc(1, sizeof(*order));

	if (!order)
		return NULL;
	order->head.opaque = opaque;
	order->message.operation = operation;
	order->message.pool = (uint8_t)pool;
	return order;
}

/* The items of --kvp, which the option's parser has checked. */
static void up(struct ic *ic)
{
	struct kvp *kvp = (struct kvp *)ic;
	const struct config *config = ic->vm->config;

	for (unsigned int i = 0; i < config->nr_kvp; i++) {
		const char *item = config->kvp[i];
		size_t length = strcspn(item, "=");
		struct kvp_order *order = new_order(KVP_SET, KVP_POOL_EXTERNAL, NULL);
		int ret = order ? put_key(order, item, length) : -ENOMEM;

		if (!ret)
			ret = put_value(order, item + length + 1);
		if (ret) {
			given(kvp, item, ret, strerror(-ret));
			free(order);
			continue;
		}
		order->given = item;
		ic_orders_add(&kvp->orders, &order->head);
	}
	pump(kvp);
}

/* What waits fails one by one, as nothing can be sent. */
static void down(struct ic *ic)
{
	struct kvp *kvp = (struct kvp *)ic;

	ic_timer_stop(&kvp->retry);
	pump(kvp);
}

static void idle(struct ic *ic)
{
	pump((struct kvp *)ic);
}

static void destroy(struct ic *ic)
{
	struct kvp *kvp = (struct kvp *)ic;

	kvp->sent = true; /* nothing is sent any more */
	while (kvp->current || (kvp->current = (struct kvp_order *)ic_orders_take(&kvp->orders)))
		finish(kvp, -ECONNRESET, "the machine has ended");
}

/* ---- For others ---- */

static const char *refusal(int error)
{
	switch (error) {
	case -EINVAL:
		return "the key is empty";
	case -EILSEQ:
		return "key or value is not UTF-8";
	case -ENAMETOOLONG:
		return "key or value is too long";
	default:
		return strerror(-error);
	}
}

/* An order of the service that can take one; otherwise NULL, and it has been failed. */
static struct kvp_order *begin(const struct vm *vm, uint8_t operation, unsigned int pool, ic_order_fn *done,
			       void *opaque)
{
	const struct kvp *kvp = (struct kvp *)ic_order_target(vm, NAME, done, opaque);
	struct kvp_order *order;

	if (!kvp)
		return NULL;
	if (pool >= KVP_POOLS) {
		ic_order_fail(done, opaque, -EINVAL, "there is no pool %u", pool);
		return NULL;
	}
	if (kvp->orders.count >= KVP_QUEUE_MAX) {
		ic_order_fail(done, opaque, -EBUSY, "%d requests are waiting already", KVP_QUEUE_MAX);
		return NULL;
	}
	order = new_order(operation, pool, opaque);
	if (!order) {
		ic_order_fail(done, opaque, -ENOMEM, "out of memory");
		return NULL;
	}
	order->head.done = done;
	return order;
}

static void submit(const struct vm *vm, struct kvp_order *order)
{
	struct kvp *kvp = (struct kvp *)ic_find(vm, NAME);

	ic_orders_add(&kvp->orders, &order->head);
	pump(kvp);
}

static void submit_key(const struct vm *vm, struct kvp_order *order, const char *key, const char *value)
{
	int ret = put_key(order, key, strlen(key));

	if (!ret && value)
		ret = put_value(order, value);
	if (ret) {
		ic_order_fail(order->head.done, order->head.opaque, ret, "%s", refusal(ret));
		free_order(order);
		return;
	}
	submit(vm, order);
}

void kvp_get(const struct vm *vm, unsigned int pool, const char *key, ic_order_fn *done, void *opaque)
{
	struct kvp_order *order = begin(vm, KVP_GET, pool, done, opaque);

	if (order)
		submit_key(vm, order, key, NULL);
}

void kvp_set(const struct vm *vm, unsigned int pool, const char *key, const char *value, ic_order_fn *done,
	     void *opaque)
{
	struct kvp_order *order = begin(vm, KVP_SET, pool, done, opaque);

	if (order)
		submit_key(vm, order, key, value);
}

void kvp_delete(const struct vm *vm, unsigned int pool, const char *key, ic_order_fn *done, void *opaque)
{
	struct kvp_order *order = begin(vm, KVP_DELETE, pool, done, opaque);

	if (order)
		submit_key(vm, order, key, NULL);
}

struct list_failure {
	kvp_list_fn *done;
	void *opaque;
};

static void list_failed(void *opaque, int error, const char *text)
{
	const struct list_failure *failure = opaque;

	failure->done(failure->opaque, error, text, NULL, 0);
}

void kvp_list(const struct vm *vm, unsigned int pool, kvp_list_fn *done, void *opaque)
{
	struct list_failure failure = { done, opaque };
	struct kvp_order *order = begin(vm, KVP_ENUMERATE, pool, list_failed, &failure);

	if (!order)
		return;
	order->list = done;
	order->head.opaque = opaque;
	submit(vm, order);
}

int ic_kvp_create(struct vm *vm)
{
	static const struct ic_version versions[] = { { 3, 0 }, { 4, 0 }, { 5, 0 } };
	static const struct ic_class class = {
		/* Linux: HV_KVP_GUID; the instance is the one that every Hyper-V machine has. */
		.device = IC_DEVICE(
			NAME, VMBUS_GUID(0xa9a0f4e7, 0x5a45, 0x4d96, 0xb8, 0x27, 0x8a, 0x84, 0x1e, 0x8c, 0x03, 0xe6),
			VMBUS_GUID(0x242ff919, 0x07db, 0x4180, 0x9c, 0x2e, 0xb8, 0x6c, 0xb6, 0x8c, 0x8c, 0x55)),
		.type = IC_TYPE_KVP,
		.versions = versions,
		.nr_versions = sizeof(versions) / sizeof(versions[0]),
		.up = up,
		.down = down,
		.idle = idle,
		.destroy = destroy,
	};
	struct kvp *kvp = calloc(1, sizeof(*kvp));

	if (!kvp)
		return -ENOMEM;
	ic_timer_init(&kvp->retry, &kvp->ic, idle);
	return ic_add(vm, &kvp->ic, &class);
}
