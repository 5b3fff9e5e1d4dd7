/* SPDX-License-Identifier: MIT */
/* Where nothing is: reads give all ones at every width, writes vanish, and neighbours do not notice. */
#include "rt/io.h"
#include "rt/rt.h"

static void port(uint16_t at)
{
	CHECK_EQ(inb(at), 0xff);
	CHECK_EQ(inw(at), 0xffff);
	CHECK_EQ(inl(at), 0xffffffff);
	outb(at, 0);
	outw(at, 0);
	outl(at, 0);
	CHECK_EQ(inb(at), 0xff);
}

static void memory(uint64_t at)
{
	CHECK_EQ(read8(at), UINT8_MAX);
	CHECK_EQ(read16(at), UINT16_MAX);
	CHECK_EQ(read32(at), UINT32_MAX);
	CHECK_EQ(read64(at), UINT64_MAX);
	write8(at, 0);
	write16(at, 0);
	write32(at, 0);
	write64(at, 0);
	CHECK_EQ(read64(at), UINT64_MAX);
}

void guest_main(void)
{
	static const uint16_t ports[] = {
		0x100, 0x2f8, 0x170, 0x1f0, 0x3d4, 0x402, 0x510, 0x60c, 0xd00, 0x8000, 0xfff8
	};
	static const uint64_t addresses[] = { 0x80000000, 0xc0000000, 0xd0000001,
					      0xdffffff8, 0xe0100000, /* behind ECAM, which has one bus */
					      0xf0000000, 0xfe900000, 0xfed00000,
					      0xffc00000, 0xfffffff0 };
	uint8_t buffer[64];
	uint8_t *to = buffer;
	uint64_t count = sizeof(buffer);

	for (unsigned int i = 0; i < sizeof(ports) / sizeof(ports[0]); i++)
		port(ports[i]);
	/* The last port, and accesses that leave the space. */
	CHECK_EQ(inb(0xffff), 0xff);
	CHECK_EQ(inw(0xfffe), 0xffff);
	for (unsigned int i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++)
		memory(addresses[i]);
	/* In both kinds of 64-bit space: where BARs may go, and far above. */
	rt_map_gib(200);
	memory(200ULL << 30);
	rt_map_gib(511);
	memory((512ULL << 30) - 8);
	/* Half in a device: the end of the RTC's ports. All or nothing, so all ones. */
	CHECK_EQ(inw(0x71), 0xffff);
	CHECK_EQ(inl(0x3fe), 0xffffffff);
	__asm__ volatile("rep insb" : "+D"(to), "+c"(count) : "d"(0x100) : "memory");
	for (unsigned int i = 0; i < sizeof(buffer); i++)
		CHECK_EQ(buffer[i], 0xff);
}
