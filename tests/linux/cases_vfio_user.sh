# cases_vfio_user.sh - the cases of tests/linux about --vfio-user: a stock kernel drives the device of
# tests/servers/vfio-user.c, and the samples of libvfio-user if LIBVFIO_USER_BUILD names a directory where that was built.
# Sourced by cases.sh.
#
# The guest has the device by uio_pci_generic, which knows INTx only, and by vfio-pci with MSI-X, MSI and INTx. vfio-pci
# wants an IOMMU, which this machine does not have, or the no-IOMMU mode of vfio.ko, without which Debian builds it. So
# it is first shown to leave the device alone; then the guest loads a vfio.ko with that mode, which mkvfio has built
# from Debian's source for the very same kernel. vfio-pci.ko, vfio-pci-core.ko and the kernel are as they come.
# shellcheck shell=bash disable=SC2016,SC2034,SC2154

cases_vfio_user() {
	echo "vfio-user-uio 1 case_vfio_user_uio"
	echo "vfio-user-samples 1 case_vfio_user_samples"
}

args_of_vfio_user() { # kernel guest-case more-of-the-command-line
	args_of "$1" "$2" "${3:-}"
	guest_args+=(--initrd "$work/$1/initrd.vfio-user")
}

# Sets server.
vfu_serve() {
	"$work/vfio-user-server" "$scratch/vfu" >"$scratch/server" 2>&1 &
	server=$!
	until grep -q ready "$scratch/server" || ! kill -0 "$server" 2>/dev/null; do
		sleep 0.05
	done
}

vfu_stop() { # pid...
	local pid
	for pid; do
		kill -KILL "$pid" 2>/dev/null
		wait "$pid"
	done
} 2>/dev/null

# One boot for all: the driver, a reset, vfio-pci without and with its no-IOMMU mode, and a server that dies and comes
# back.
case_vfio_user_uio() {
	local server reads
	[ -e "$work/vfio-user-server" ] || { skip "tests/servers/vfio-user-server is not beside vmm"; return 0; }
	vfu_serve
	args_of_vfio_user cloud vfio_user_uio
	vm_start "${guest_args[@]}" --vfio-user "socket=$scratch/vfu,reconnect=on,timeout=60000"
	if vm_says "the guest is through with it" '^guest: take it away'; then
		vfu_stop "$server"
		vm_says "the guest sees that it is gone" '^vfio_user: away' && vfu_serve
	fi
	vm_end
	vfu_stop "$server"
	is "ends with status 0" "$status" 0
	section resources >"$scratch/resources"
	has "BAR0, of 0x3000 bytes, has 0x4000" '^0x[0-9a-f]*[048c]000 0x[0-9a-f]*[37bf]fff 0x0*40200$' "$scratch/resources"
	has "BAR1 is I/O" '^0x0*[0-9a-f]{4} 0x0*[0-9a-f]{4} 0x0*40101$' "$scratch/resources"
	has "BAR2 is 64 bits wide and prefetchable" '^0x[0-9a-f]*0000 0x[0-9a-f]*ffff 0x0*14220c$' "$scratch/resources"
	is "registers, ports, memory, doorbells, DMA, INTx and ROM: at first, after a reset, after vfio-pci" \
		"$(grep -c '^vfio_user: all passed, resets' "$log")" 3
	reads=$(sed -n 's/^vfio_user: region reads before the first register: \([0-9]*\).*/\1/p' "$log" | head -n 1)
	holds "fewer than 80 region reads before the driver's first register: ${reads:-none}" [ "${reads:-80}" -lt 80 ]
	has "it can be reset" '^guest: ways to reset it: pm'
	has "and is" '^vfio_user: all passed, resets 2'
	has "vfio-pci does not take it without an IOMMU" "^guest: with vfio-pci its driver is '', no-iommu mode ''"
	if [ -e "$work/vfio-noiommu.ko" ]; then
		has "with the no-IOMMU mode it does" "^guest: with a vfio that needs no IOMMU 'vfio-pci'"
		is "regions by read(), write() and mmap(), DMA, MSI-X, MSI, INTx and a reset, opened twice" \
			"$(grep -c '^vfio_user: all passed by vfio-pci' "$log")" 2
	else
		skip "vfio-pci: $(cat "$work/vfio-noiommu.why")"
	fi
	has "uio_pci_generic takes it again" "^guest: and then 'uio_pci_generic'"
	has "the server is back" '^vmm: .*the server is back; the guest'
	has "and the device does what it did" '^vfio_user: back'
	has "interrupts came" '^guest: interrupts [1-9]'
	lacks "and each was ours" 'nobody cared'
	lacks "no complaint of the kernel's about the ROM" 'Invalid PCI ROM'
}

# Debian has no package of libvfio-user. The third sample does DMA when it gets SIGALRM, to the first pages of the two
# pieces of memory, which this guest does not use. Not every version of libvfio-user has all of them in a state that
# starts.
case_vfio_user_samples() {
	local name devices=() shadow
	local -A pids=()
	[ -e "$work/libvfio-user" ] || { skip "LIBVFIO_USER_BUILD is not set"; return 0; }
	for name in gpio-pci-idio-16 shadow_ioeventfd_server server; do
		[ -e "$work/libvfio-user/$name" ] || { skip "$name: not built"; continue; }
		LD_LIBRARY_PATH=$work/libvfio-user "$work/libvfio-user/$name" "$scratch/$name" >"$scratch/console.$name" 2>&1 &
		pids[$name]=$!
		if sample_listens $!; then
			devices+=(--vfio-user "socket=$scratch/$name,timeout=60000")
		else
			skip "$name: $(tail -n 1 "$scratch/console.$name")"
			unset "pids[$name]"
		fi
	done
	args_of_vfio_user amd64 vfio_user_samples 'memmap=64K$0x100000000'
	vm_start "${guest_args[@]}" --memory 2112M "${devices[@]}"
	if [ -n "${pids[shadow_ioeventfd_server]:-}" ] && vm_says "a shadow doorbell is rung" '^guest: shadow: written'; then
		shadow=$(find "/proc/${pids[shadow_ioeventfd_server]}/fd" -lname '*memfd:BAR0*' | head -n 1)
		is "and the server finds what was written, without a kernel that knows of it" \
			"$(od -An -tx4 -N4 "$shadow" | tr -d ' ')" 600df00d
	fi
	if [ -n "${pids[server]:-}" ] && vm_says "the guest waits for the third one" '^guest: server: waits for its interrupt'; then
		kill -ALRM "${pids[server]}"
	fi
	vm_end
	is "ends with status 0" "$status" 0
	vfu_stop "${pids[@]}"
	if [ -n "${pids[gpio-pci-idio-16]:-}" ]; then
		has "gpio-pci-idio-16 has its stock driver" "^guest: gpio: driver '(gpio-)?pci-idio-16'"
		has "which reads its pins" '^guest: gpio: 1 0 0 1'
	fi
	if [ -n "${pids[server]:-}" ]; then
		has "a mapped BAR in I/O space goes by ports, up to its end" '^guest: server: 0xcafef00d, beyond 0xffffffff'
		has "INTx came" '^guest: server: interrupt [1-9]'
		has "the server did DMA by mapped memory and by messages" 'doing dma io' "$scratch/console.server"
		lacks "and found what it had written" 'mismatch|sgl|failed to map' "$scratch/console.server"
	fi
	has "all that there were" '^== end'
	lacks "no complaint of vmm's" '^vmm: '
}

# It makes the socket before the device, and a device that cannot be made ends it: so until it waits for a client, in
# accept() or poll().
sample_listens() { # pid
	local call
	while kill -0 "$1" 2>/dev/null; do
		read -r call _ <"/proc/$1/syscall"
		case $call in 43 | 288 | 7 | 271) return 0 ;; esac
		sleep 0.05
	done 2>/dev/null
	return 1
}
