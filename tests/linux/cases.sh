# cases.sh - the cases of tests/linux: what a stock kernel must find, and how a run of it must end.
#
# cases() lists them: a name, the guest's CPUs (cases with one CPU run side by side), and the function with arguments.
# shellcheck shell=bash disable=SC2034,SC2154

. "${BASH_SOURCE[0]%/*}/cases_net.sh"
. "${BASH_SOURCE[0]%/*}/cases_vmbus.sh"
. "${BASH_SOURCE[0]%/*}/cases_disk.sh"
. "${BASH_SOURCE[0]%/*}/cases_ivshmem.sh"
. "${BASH_SOURCE[0]%/*}/cases_vhost_user.sh"
. "${BASH_SOURCE[0]%/*}/cases_firmware.sh"
. "${BASH_SOURCE[0]%/*}/cases_vfio_user.sh"

COMPRESSIONS="gzip bzip2 lzma xz lzo lz4 zstd none"
# What takes longest, in that order: begun first, so that where two hosts share the cases neither waits for the other in the end.
LONG_CASES="firmware-debian vhost-user-blk disk-debian disk-kill disk-amd64 vmbus-amd64-user-2cpu vmbus-amd64-kvm-2cpu
	disk-64 net-queues disk-direct net-offload firmware-disk firmware-app-4M firmware-uki facts-cloud-2cpu-5G net-reboot
	disk-fio reboot-2cpu disk-errors ivshmem-qemu vmbus-cloud-kvm-4cpu"

# The second kernel takes part where it may differ: what it finds, several CPUs, its address. ALL_KERNELS (--all) has it take
# part in everything, and each number of CPUs.
cases() {
	local kernel format
	for kernel in cloud amd64; do
		echo "facts-$kernel-1cpu-256M 1 case_facts $kernel 1 256 mmio"
		echo "boot-$kernel-2cpu-256M 2 case_boot $kernel 2 256M"
		[ "$kernel" = cloud ] || [ -n "${ALL_KERNELS-}" ] || continue
		echo "kaslr-$kernel 1 case_kaslr $kernel"
		echo "facts-$kernel-2cpu-5G 2 case_facts $kernel 2 5120 com1"
		echo "boot-$kernel-1cpu-5G 1 case_boot $kernel 1 5G"
		echo "unpack-by-guest-$kernel 1 case_unpack_by_guest $kernel"
		echo "elf-$kernel 1 case_elf $kernel auto"
		echo "pvh-$kernel 1 case_elf $kernel pvh"
		echo "nokaslr-$kernel 1 case_nokaslr $kernel"
		echo "power-button-$kernel 1 case_power_button $kernel"
		echo "panic-$kernel 1 case_panic $kernel"
	done
	for format in $COMPRESSIONS; do
		echo "payload-$format 1 case_payload $format"
	done
	echo "console-mmio 1 case_console mmio"
	echo "console-com1 1 case_console com1"
	echo "initrd-none 1 case_initrd_none"
	echo "initrd-100M 1 case_initrd_large"
	echo "halt 1 case_halt"
	echo "sigterm-twice 1 case_sigterm_twice"
	echo "timeout 1 case_timeout"
	echo "debug-exit 1 case_debug_exit"
	echo "no-reboot 1 case_no_reboot"
	echo "triple-fault 1 case_triple_fault"
	[ -z "${ALL_KERNELS-}" ] || echo "reboot-1cpu 1 case_reboot 1"
	echo "reboot-2cpu 2 case_reboot 2"
	cases_vmbus
	cases_net
	cases_disk
	cases_ivshmem
	cases_vhost_user
	cases_firmware
	cases_vfio_user
}

# A list of cases, the long ones first.
long_first() {
	awk -v long="$LONG_CASES" 'BEGIN { n = split(long, name); for (i in name) rank[name[i]] = i }
		{ printf "%d %s\n", $1 in rank ? rank[$1] : n + NR, $0 }' | sort -n | cut -d ' ' -f 2-
}

# -- what the kernel finds

case_facts() { # kernel cpus memory/MiB console
	local begin end trace=$scratch/trace
	args_of "$1" facts "$([ "$4" = mmio ] || echo console=ttyS0)"
	begin=$(date +%s)
	vm "${guest_args[@]}" --cpus "$2" --memory "$3M" --device pci-test --trace "pci_bar_*,file=$trace"
	end=$(date +%s)
	is "ends with status 0" "$status" 0
	has "everything was printed" '^== end'
	has "the kernel has an address" '^ffffffff[89a-f][0-9a-f]{2}00000 T _text' <(section text)
	section dmesg >"$scratch/dmesg"
	facts_memory "$3"
	facts_cpus "$2"
	facts_console "$4"
	facts_time "$begin" "$end"
	facts_interrupts "$2"
	facts_pci "$trace"
	facts_log
}

facts_memory() { # MiB
	local ram=0 range total
	while IFS= read -r range; do
		ram=$((ram + 0x${range#*-} - 0x${range%-*} + 1))
	done < <(section iomem | sed -n 's/^\([0-9a-f]*-[0-9a-f]*\) : System RAM$/\1/p')
	holds "all RAM but the first MiB's holes is RAM to the kernel" \
		[ $((ram >> 10)) -gt $((($1 - 1) << 10)) -a $((ram >> 20)) -le "$1" ]
	total=$(section memory | tr -dc 0-9)
	holds "MemTotal $total kB is most of it" [ "$((total * 100 / ($1 << 10)))" -gt 75 ]
	[ "$1" -le 4096 ] || has "RAM above 4 GiB" "^100000000-$(printf %x $(((4096 + $1 - 2048 << 20) - 1))) : System RAM" \
		<(section iomem)
}

facts_cpus() { # count
	local cpu wanted=
	is "number of CPUs" "$(section cpus)" "$1"
	for ((cpu = 0; cpu < $1; cpu++)); do
		wanted+="processor=$cpu,physical id=0,siblings=$1,core id=$cpu,cpu cores=$1,apicid=$cpu,initial apicid=$cpu,"
	done
	is "one package, a core a CPU, APIC ids in order" \
		"$(section cpuinfo | grep -v ^flags | sed 's/[\t ]*: /=/' | tr '\n' ,)" "$wanted"
	holds "x2apic on every CPU" [ "$(section cpuinfo | grep -c '^flags.* x2apic')" = "$1" ]
	for ((cpu = 0; cpu < $1; cpu++)); do
		has "cpu$cpu: L1 of its own" "^cpu$cpu level 1 Data [0-9]+K shared $cpu\$" <(section caches)
	done
	is "last cache shared by all" "$(section caches | sort -k 3 -n | sed -n '$s/.*shared //p')" \
		"$([ "$1" = 1 ] && echo 0 || echo "0-$(($1 - 1))")"
	[ "$1" -gt 1 ] || return 0
	is "cpu1 goes and comes back, and takes a task" "$(section hotplug | tr '\n' ,)" \
		"online 0-1,cpu1 0 online 0,cpu1 1 online 0-1,task on cpu 1,"
}

facts_console() { # mmio or com1
	case $1 in
	mmio)
		has "ttyS0 is the MMIO UART" 'ttyS0 at MMIO 0x[0-9a-f]+ \(irq = [0-9]+, .*16550A' "$scratch/dmesg"
		has "vmm named its console" 'console=uart8250,mmio,0x' <(section cmdline) ;;
	com1)
		has "ttyS0 is COM1" 'ttyS0 at I/O 0x3f8 \(irq = 4, .*16550A' "$scratch/dmesg"
		lacks "vmm added no console" 'console=.*console=' <(section cmdline) ;;
	esac
}

facts_time() { # host's time before and after
	local rtc
	rtc=$(section rtc | tail -n 1)
	holds "the RTC has the host's time ($rtc, host $1 to $2)" [ "${rtc:-0}" -ge $(($1 - 2)) -a "${rtc:-0}" -le $(($2 + 2)) ]
	has "the RTC driver took it" 'rtc_cmos .*: registered as rtc0' "$scratch/dmesg"
	lacks "the RTC works" 'broken or not accessible' "$scratch/dmesg"
	has "the PM timer is a clock source" '^chosen acpi_pm$' <(section clocks)
	has "time by the PM timer never goes back" '^monotonic yes' <(section clocks)
	has "sleeping takes its time" '^sleep good' <(section clocks)
}

facts_interrupts() { # cpus
	section interrupts >"$scratch/interrupts"
	has "serial port's interrupt came" '^ *[0-9]+: .*[1-9][0-9]* .*IO-APIC .*ttyS0' "$scratch/interrupts"
	has "ACPI's interrupt is GSI 9, level" '^ *9: .*IO-APIC +9-fasteoi +acpi' "$scratch/interrupts"
	has "the RTC's interrupt is GSI 8, edge" '^ *8: .*IO-APIC +8-edge +rtc0' "$scratch/interrupts"
	is "no errors, no lost level interrupts" "$(awk '/ERR:|MIS:/ { n += $2 } END { print n + 0 }' "$scratch/interrupts")" 0
	is "timer interrupts on every CPU" \
		"$(awk '/LOC:|HVS:/ { for (i = 2; $i ~ /^[0-9]+$/; i++) n += $i && !seen[i]++ } END { print n + 0 }' \
			"$scratch/interrupts")" "$1"
	[ "$1" = 1 ] || holds "interrupts between CPUs" \
		[ "$(awk '/RES:|CAL:/ { n += $2 + $3 } END { print n + 0 }' "$scratch/interrupts")" -gt 0 ]
}

facts_pci() { # trace file
	section pci >"$scratch/pci"
	has "the host bridge is 00:00.0" '^0000:00:00\.0 .*0x060000' "$scratch/pci"
	# vmm's last word on each BAR against the kernel's: the kernel had no reason to move any.
	is "BARs are where vmm put them" \
		"$(sed -n 's/^0000:00:01.0 bar[0-9] \(0x[0-9a-f]*\) .*/\1/p' "$scratch/pci" |
			while read -r at; do printf '0x%x\n' "$at"; done | sort)" \
		"$(grep -v refused "$1" | sed -n 's/.*pci_bar_map.* at \(0x[0-9a-f]*\) size .*/\1/p' | sort -u)"
	lacks "no BAR had to be moved" "BAR [0-9]+: (no space|failed|can't)|address conflict" "$scratch/dmesg"
}

facts_log() {
	lacks "the kernel has nothing to say against ACPI" \
		'ACPI.*(Error|Warning|BUG)|BIOS (bug|BUG)|irmware (Bug|bug|Warn)|AE_[A-Z]+' "$scratch/dmesg"
	is "no warning of the kernel's" "$(warnings "$scratch/dmesg")" ""
}

# The emulated host does not intercept XSETBV (a fault of its emulator), so its KVM cannot update CPUID leaf 13.
warnings() { # log
	local known=${VMM_EMULATED_HOST:+fpu__init_system_xstate}
	grep -aE 'WARNING: |BUG: |Oops|unchecked MSR|soft lockup|rcu.*stall' "$1" | grep -av "${known:-^\$}"
}

# -- ways in

case_boot() { # kernel cpus memory
	vm --kernel "$work/$1/vmlinuz" --initrd "$work/$1/initrd" --cpus "$2" --memory "$3" \
		--cmdline "quiet cryptomgr.notests vmm.test=poweroff"
	is "ends with status 0" "$status" 0
	has "reached init with all CPUs" "^vmm-guest: cpus $2 memory"
}

case_unpack_by_guest() { # kernel
	args_of "$1" text
	vm "${guest_args[@]}" --boot guest
	is "ends with status 0" "$status" 0
	has "reached its end" '^== end'
}

case_elf() { # kernel boot-mode
	args_of "$1" text
	vm "${guest_args[@]}" --kernel "$work/$1/vmlinux" --boot "$2"
	is "ends with status 0" "$status" 0
	has "at its link address" '^ffffffff81000000 T _text' <(section text)
}

case_kaslr() { # kernel
	local at=() boot
	args_of "$1" text
	for boot in 1 2; do
		vm "${guest_args[@]}"
		is "boot $boot ends with status 0" "$status" 0
		at+=("$(section text)")
		has "boot $boot has an address" '^ffffffff[89a-f][0-9a-f]{2}00000 T _text' <(section text)
	done
	# Two draws are the same once in 500.
	if [ "${at[0]}" = "${at[1]}" ]; then
		vm "${guest_args[@]}"
		at[1]=$(section text)
	fi
	holds "boots differ in the kernel's virtual address" [ "${at[0]}" != "${at[1]}" ]
}

case_nokaslr() { # kernel
	local line pad
	line="nokaslr quiet cryptomgr.notests vmm.test=run vmm.case=text vmm.pad="
	# Not one letter all over: a part that is lost or moved must show.
	pad=$(seq -s . 1000 9999)
	line+=${pad:0:2000-${#line}}
	vm --kernel "$work/$1/vmlinuz" --initrd "$work/$1/initrd" --cmdline "$line"
	is "ends with status 0" "$status" 0
	has "at its link address" '^ffffffff81000000 T _text' <(section text)
	is "length of the command line" "${#line}" 2000
	is "the command line arrives, with vmm's console behind it" "$(section cmdline)" \
		"$line console=uart8250,mmio,0xfe900000"
}

case_payload() { # format
	args_of cloud text
	vm "${guest_args[@]}" --kernel "$work/bzImage.$1"
	is "ends with status 0" "$status" 0
	has "reached its end" '^== end'
	lacks "unpacked by vmm" 'unpacks itself|^vmm: '
	has "relocated" '^ffffffff[89a-f][0-9a-f]{2}00000 T _text' <(section text)
}

# -- the console and the initrd

case_console() { # mmio or com1
	args_of cloud console "$([ "$1" = mmio ] || echo console=ttyS0)"
	mkfifo "$scratch/in"
	input=$scratch/in
	exec 7<>"$scratch/in"
	vm_start "${guest_args[@]}"
	if vm_says "28 kB of output come to their end" '^== end'; then
		is "and are complete and in order" "$(awk '/^== end/ { exit } on; /^== output/ { on = 1 }' "$log" | md5sum)" \
			"$({ seq 100000 103999 | tr '\n' ' ' | fold -w 80 && echo; } | md5sum)"
		sleep 0.5
		echo "the quick brown fox" >&7
	fi
	vm_end
	exec 7>&-
	has "a line of input arrives" "^guest: got 'the quick brown fox'"
	is "ends with status 0" "$status" 0
}

case_initrd_none() {
	vm --kernel "$work/cloud/vmlinuz" --no-reboot --cmdline "quiet cryptomgr.notests panic=-1"
	has "the kernel panics" 'Kernel panic - not syncing: VFS: Unable to mount root'
	is "and its reset ends vmm with status 0" "$status" 0
}

case_initrd_large() {
	args_of cloud initrd
	vm "${guest_args[@]}" --initrd "$work/initrd.100M" --memory 256M
	is "ends with status 0" "$status" 0
	has "the first file of it" "first file $(md5sum <"$work/head.bin")"
	has "the last file of it" "last file $(md5sum <"$work/tail.bin")"
}

# -- ways out

case_power_button() { # kernel
	args_of "$1" button
	vm_start "${guest_args[@]}"
	vm_says "the guest listens to its power button" 'guest: waiting for the power button' && kill -TERM "$vm_pid"
	vm_end
	has "the button arrives as a key" 'guest: event +1 116'
	is "ends with status 0" "$status" 0
}

case_sigterm_twice() {
	args_of cloud deaf
	vm_start "${guest_args[@]}"
	vm_says "a guest that does not listen" 'guest: deaf' && kill -TERM "$vm_pid"
	vm_says "the first SIGTERM asks" 'SIGTERM: asking the guest' && sleep 1
	holds "and leaves it running" kill -0 "$vm_pid"
	kill -TERM "$vm_pid"
	vm_end 20
	is "the second one ends it by that signal" "$status" 143
}

case_halt() {
	args_of cloud halt
	vm_start "${guest_args[@]}"
	vm_says "the guest halts" 'guest: halting' && sleep 1
	holds "which does not end vmm" kill -0 "$vm_pid"
	kill -TERM "$vm_pid"
	vm_says "the first SIGTERM asks" 'SIGTERM: asking the guest'
	kill -TERM "$vm_pid"
	vm_end 20
	is "the second one ends it by that signal" "$status" 143
}

case_panic() { # kernel
	args_of "$1" panic
	vm "${guest_args[@]}"
	has "the kernel crashes" 'sysrq: Trigger a crash|Kernel panic - not syncing: sysrq'
	is "which pvpanic tells vmm: status 3" "$status" 3
}

case_timeout() {
	local begin=$SECONDS
	vm --kernel "$work/cloud/vmlinuz" --initrd "$work/cloud/initrd" --timeout 5 --cmdline "quiet vmm.test=wait"
	is "ends with status 124" "$status" 124
	holds "in time" [ $((SECONDS - begin)) -le 15 ]
	has "and says so" '^vmm: --timeout: '
}

case_debug_exit() {
	args_of cloud debug_exit
	vm "${guest_args[@]}"
	is "ends with the byte written" "$status" 42
	lacks "at once" 'guest: still here'
}

case_no_reboot() {
	vm --kernel "$work/cloud/vmlinuz" --initrd "$work/cloud/initrd" --no-reboot \
		--cmdline "quiet cryptomgr.notests vmm.test=reboot"
	is "a reset ends vmm with status 0" "$status" 0
	is "after one boot" "$(grep -ac '^vmm-guest: init reached' "$log")" 1
}

case_triple_fault() {
	args_of cloud reboot "vmm.methods=triple"
	vm "${guest_args[@]}"
	is "ends with status 4" "$status" 4
	has "and the registers" '^vmm: .*triple fault'
	has "rip among them" 'rip'
}

case_reboot() { # cpus
	args_of cloud reboot "vmm.methods=acpi,kbd,pci"
	vm "${guest_args[@]}" --cpus "$1" --stats "$scratch/stats"
	is "ends with status 0" "$status" 0
	is "boots four times, resets three ways" "$(grep -ao 'guest: boot [0-9]*\|guest: reboot by [a-z]*' "$log" | tr '\n' ,)" \
		"guest: boot 0,guest: reboot by acpi,guest: boot 1,guest: reboot by kbd,guest: boot 2,guest: reboot by pci,guest: boot 3,"
	is "with all CPUs each time" "$(grep -ac "^vmm-guest: cpus $1 memory" "$log")" 4
	has "vmm counts them" '"resets": 3,' "$scratch/stats"
}
