# cases_ivshmem.sh - the cases of tests/linux about ivshmem: stock kernels, Debian's QEMU and processes of the host on
# our server. Sourced by cases.sh.
#
# A token goes round through the memory and by doorbells (ivshmem.c); one bell that is lost stops it. A stock guest has
# the device by uio_pci_generic, which knows INTx only (msi=off). Nothing in Debian's kernels brings MSI-X to user space
# (vfio-pci is built without VFIO_NOIOMMU), so that a freestanding guest, tests/guests/ivshmem.c, is the party with
# MSI-X, on vmm and on QEMU, and a stock guest with that form of the device only rings. Debian has no package with
# QEMU's own ivshmem-server.
# shellcheck shell=bash disable=SC2034,SC2054,SC2154

cases_ivshmem() {
	echo "ivshmem-ring 1 case_ivshmem_ring"
	echo "ivshmem-qemu 1 case_ivshmem_qemu"
}

SHM_ROUNDS=100
SHM_FREESTANDING="test=token rounds=$SHM_ROUNDS vectors=3 size=1048576"

shm_server() { # vmm ivshmem-server's further options
	shm_pids=()
	"$vmm" ivshmem-server --socket "$scratch/shm" --size 1M --vectors 3 "$@" >"$scratch/server" 2>&1 &
	shm_server=$!
	until [ -S "$scratch/shm" ] || ! kill -0 "$shm_server" 2>/dev/null; do
		sleep 0.05
	done
}

# A party beside the guest of vm_start(); what it says is in $scratch/console.NAME.
shm_party() { # name command...
	"${@:2}" >"$scratch/console.$1" 2>&1 </dev/null &
	shm_pids+=($!)
	[ "$1" = process ] || boots=$((boots + 1))
}

# After the last guest has ended: the others are as far.
shm_end() {
	local pid end=$((SECONDS + 30))
	for pid in "${shm_pids[@]}"; do
		while kill -0 "$pid" 2>/dev/null && [ $SECONDS -lt $end ]; do
			sleep 0.1
		done
		kill -KILL "$pid" 2>/dev/null
		wait "$pid" 2>/dev/null
	done
	kill -TERM "$shm_server"
	status=0
	wait "$shm_server" || status=$?
	is "the server ends with status 0" "$status" 0
	is "and has nothing to say" "$(cat "$scratch/server")" ""
}

args_of_shm() { # kernel guest-case role parties
	args_of "$1" "$2" "vmm.ring=$3,$4,$SHM_ROUNDS"
	guest_args+=(--initrd "$work/$1/initrd.ivshmem")
}

shm_can() { # needs the freestanding guest
	[ -e "$work/ivshmem.guest" ] || { skip "tests/guests/ivshmem is not beside vmm"; return 1; }
}

goes_round() { # who role [name]
	local file=${3:+$scratch/console.$3} line="^ivshmem: role $2, id [0-9]+: $SHM_ROUNDS rounds"
	has "the token goes round: $1" "$line" "${file:-$log}"
	lacks "no complaint of vmm's about it" '^vmm: ' "${file:-$log}"
	[ -z "$file" ] || grep -aqE "$line" "$file" || tail -n 8 "$file" | tr -cd '\n -~' | sed "s/^/# $3 | /" >>"$scratch/tap"
}

# Two stock guests with INTx, a freestanding one with MSI-X and a process of the host. The first guest also has plain
# devices, one whose BAR is larger than all memory, one of huge pages if there are any.
case_ivshmem_ring() {
	local more=() file files=("$scratch/large") shm="socket=$scratch/shm,vectors=3"
	shm_can || return 0
	shm_server --memfd
	shm_party process "$work/ivshmem" host "$scratch/shm" 0 4 $SHM_ROUNDS
	truncate -s 16G "$scratch/large"
	[ -z "${VMM_EMULATED_HOST:-}" ] || shm_huge_pages
	for file in "${files[@]}"; do
		more+=(--ivshmem "path=$file,size=$(($(stat -c %s "$file") >> 20))M")
		"$work/ivshmem" plain "$file" fill >"$scratch/filled" || not_ok "$file" "$(cat "$scratch/filled")"
	done
	args_of_shm cloud ivshmem_uio 1 4
	shm_party stock "$vmm" "${guest_args[@]}" --ivshmem "$shm,msi=off"
	args_of_shm cloud ivshmem_uio 3 4
	vm_start "${guest_args[@]}" --ivshmem "$shm,msi=off" "${more[@]}"
	vm_says "BARs are there" '^== end'
	shm_party msix "$vmm" --kernel "$work/ivshmem.guest" --ivshmem "$shm" --stats "$scratch/stats" \
		--cmdline "$SHM_FREESTANDING role=2 parties=4"
	vm_end
	is "ends with status 0" "$status" 0
	shm_end
	goes_round "a stock guest with INTx" 3
	goes_round "another" 1 stock
	goes_round "a guest with MSI-X" 2 msix
	goes_round "a process of the host" 0 process
	section "bars 0000:00:01.0" >"$scratch/bars"
	has "BAR0 has 256 bytes" '^0x[0-9a-f]* 256 0x' "$scratch/bars"
	has "BAR2 lies above 4 GiB, 64 bits wide, prefetchable" '^0x0*[1-9a-f][0-9a-f]{8,} 1048576 0x0*14220c$' "$scratch/bars"
	is "there is no third one" "$(wc -l <"$scratch/bars")" 2
	has "one of 16 GiB lies there too" '^0x0*[1-9a-f][0-9a-f]{8,} 17179869184 0x0*14220c' <(section "bars 0000:00:02.0")
	has "interrupts came" '^guest: interrupts [1-9]'
	lacks "and each was ours" 'nobody cared'
	for file in "${files[@]}"; do
		"$work/ivshmem" plain "$file" check >"$scratch/checked"
		has "${file##*/}: both sides see the same" "check $(stat -c %s "$file") bytes" "$scratch/checked"
	done
	holds "a bell with MSI-X costs no exit to vmm" \
		[ "$(sed -n 's/^.*"ivshmem0.bar0": *\([0-9]*\).*/\1/p' "$scratch/stats" | head -n 1)" -lt $SHM_ROUNDS ]
	[ ${#files[@]} -eq 1 ] || { rm "${files[1]}" && umount "$scratch/huge"; }
}

# The emulated host is ours alone.
shm_huge_pages() {
	echo 4 >/proc/sys/vm/nr_hugepages
	mkdir "$scratch/huge"
	[ "$(cat /proc/sys/vm/nr_hugepages)" -ge 2 ] && mount -t hugetlbfs none "$scratch/huge" || return 0
	files+=("$scratch/huge/shm")
	truncate -s 4M "$scratch/huge/shm"
}

# Debian's QEMU with its ivshmem-doorbell, a stock guest that rings and a freestanding one with MSI-X; a stock guest of
# ours with INTx and a process of the host: all on our server.
case_ivshmem_qemu() {
	local qemu=(qemu-system-x86_64 -accel kvm -cpu host -M q35 -nodefaults -no-user-config -display none -no-reboot
		-serial stdio -chardev "socket,path=$scratch/shm,id=c" -device ivshmem-doorbell,chardev=c,vectors=3)
	shm_can || return 0
	command -v "${qemu[0]}" >/dev/null || { skip "${qemu[0]} is not installed"; return 0; }
	shm_server --shm "vmm-test-$$"
	shm_party process "$work/ivshmem" host "$scratch/shm" 0 4 $SHM_ROUNDS
	args_of_shm cloud ivshmem_poll 1 4
	shm_party qemu "${qemu[@]}" -m 256M -kernel "$work/cloud/vmlinuz" -initrd "$work/cloud/initrd.ivshmem" \
		-append "console=ttyS0 ${guest_args[5]}"
	args_of_shm cloud ivshmem_uio 2 4
	vm_start "${guest_args[@]}" --ivshmem "socket=$scratch/shm,vectors=3,msi=off"
	vm_says "our guest has its device" '^== end'
	shm_party freestanding "${qemu[@]}" -m 64M -device isa-debug-exit,iobase=0xf4,iosize=1 \
		-kernel "$work/ivshmem.guest" -append "$SHM_FREESTANDING role=3 parties=4"
	vm_end
	is "our guest ends with status 0" "$status" 0
	shm_end
	goes_round "our guest, INTx" 2
	goes_round "QEMU's stock guest, which only rings" 1 qemu
	goes_round "QEMU's guest with MSI-X" 3 freestanding
	goes_round "a process of the host" 0 process
	holds "the server has removed its memory" [ ! -e "/dev/shm/vmm-test-$$" ]
}
