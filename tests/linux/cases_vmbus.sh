# cases_vmbus.sh - the cases of tests/linux about Hyper-V: a stock kernel that believes in it, and Debian's own daemons.
#
# Sourced by cases.sh. Both backends of the SynIC are tried, since users have both kinds of KVM.
# shellcheck shell=bash disable=SC2034,SC2154

cases_vmbus() {
	local kernel synic more
	for kernel in cloud amd64; do
		for synic in user kvm; do
			# Synthetic timers of vmm's own with one of the kernels, KVM's with both.
			more=
			[ "$kernel $synic" != "amd64 user" ] || more=,timers=on
			# Two CPUs with one kernel, one and four with the other.
			[ "$kernel" = cloud ] && [ -z "${ALL_KERNELS-}" ] ||
				echo "vmbus-$kernel-$synic-2cpu 2 case_vmbus $kernel $synic$more 2"
			[ "$kernel" = cloud ] || [ -n "${ALL_KERNELS-}" ] || continue
			echo "vmbus-$kernel-$synic-1cpu 1 case_vmbus $kernel $synic$more 1"
			echo "vmbus-$kernel-$synic-4cpu 4 case_vmbus $kernel $synic$more 4"
		done
		[ "$kernel" = cloud ] || [ -n "${ALL_KERNELS-}" ] || continue
		echo "vmbus-services-$kernel 1 case_vmbus_services $kernel user"
		echo "vmbus-panic-$kernel 1 case_vmbus_panic $kernel user"
	done
	echo "vmbus-old-versions 1 case_vmbus_old"
	for synic in user kvm; do
		echo "vmbus-reload-$synic 2 case_vmbus_reload $synic"
		echo "vmbus-kexec-$synic 1 case_vmbus_kexec $synic"
		echo "vmbus-reboot-$synic 2 case_vmbus_reboot $synic"
	done
	echo "vmbus-services-kvm 2 case_vmbus_services cloud kvm"
	echo "vmbus-panic-kvm 1 case_vmbus_panic cloud kvm"
}

ctl() { # command [key=value]...: its answer, or its complaint
	"$vmm" ctl --timeout 60 "$scratch/ctl" "$@" 2>&1
}
does() { # command [key=value]...: a test of its own
	local out
	if out=$(ctl "$@"); then ok "ctl $1"; else not_ok "ctl $1" "$out"; fi
}

args_of_hyperv() { # kernel synic guest-case more-of-the-command-line
	args_of "$1" "$3" "${4:-}"
	guest_args+=(--initrd "$work/$1/initrd.hyperv" --vmbus --hyperv "synic=$2" --control "$scratch/ctl")
}

HV_CLASSES="heartbeat:57164f39-9115-4e78-ab55-382f3bd5422d shutdown:0e0b6031-5213-4934-818b-38d90ced39db
	timesync:9527e630-d0ae-497b-adce-e80ab0175caf kvp:a9a0f4e7-5a45-4d96-b827-8a841e8c03e6
	vss:35fa2e29-ea23-4236-96ae-3a6ebacba440 fcopy:34d14be3-dee4-41c8-9ae7-6b174977c192"

# What a kernel makes of it by itself, then the end by way of the shutdown service, which SIGTERM takes too.
case_vmbus() { # kernel synic cpus
	local device
	args_of_hyperv "$1" "$2" vmbus
	vm_start "${guest_args[@]}" --cpus "$3"
	if vm_says "the guest has looked at it all" '^== end'; then
		if [ "$3" = 4 ]; then kill -TERM "$vm_pid"; else does shutdown; fi
	fi
	vm_end
	is "ends with status 0" "$status" 0
	has "by the shutdown service$([ "$3" != 4 ] || echo ", which SIGTERM takes")" '^guest: poweroff by the kernel'
	section dmesg >"$scratch/dmesg"
	has "Hyper-V is detected" 'Hypervisor detected: Microsoft Hyper-V' "$scratch/dmesg"
	lacks "and not KVM" 'kvm-guest|KVM setup' "$scratch/dmesg"
	has "the clock is the reference TSC page" '^hyperv_clocksource_tsc_page' <(section clocksource)
	has "the TSC's frequency is taken from an MSR" 'tsc: Detected|TSC freq|Hyper-V: .*TSC' "$scratch/dmesg"
	has "VMBus at the highest version this kernel knows" 'Vmbus version:5\.3|Vmbus version:6\.' "$scratch/dmesg"
	section devices >"$scratch/devices"
	for device in $HV_CLASSES; do
		has "${device%%:*} is bound to hv_util" "^\{${device#*:}\} driver hv_util" "$scratch/devices"
	done
	has "the SINT interrupts" 'HYP: .*[1-9]' <(section interrupts)
	[ "$2" = user ] || has "and so do the synthetic timers" 'HVS: .*[1-9]' <(section interrupts)
	is "time goes on at the host's pace" "$(section pace)" good
	is "no warning of the kernel's" "$(warnings "$scratch/dmesg")" ""
	lacks "vmm has nothing to complain of" '^vmm: .*(vmbus|hyperv)'
}

# The guest's daemons of Debian's hyperv-daemons at work.
case_vmbus_services() { # kernel synic
	args_of_hyperv "$1" "$2" services
	head -c 300000 /dev/urandom >"$scratch/file"
	vm_start "${guest_args[@]}" --kvp "vmm.test=from the host" --kvp "umlaut=äöü €" --cpus "$([ "$2" = kvm ] && echo 2 || echo 1)"
	if vm_says "the daemons are up" '^guest: daemons up'; then
		services_input
		services_kvp
		services_fcopy
		services_vss
		has "the heartbeat beats" '"heartbeat"' <(ctl status)
		does shutdown
	fi
	vm_end
	is "ends with status 0" "$status" 0
	lacks "vmm has nothing to complain of" '^vmm: .*(vmbus|hyperv|kvp|vss|fcopy)'
}

services_input() {
	does type text='Hello, World! ~42' enter=true
	vm_says "what the host types is read" '^guest: typed Hello, World! ~42'
	does mouse x=1000 y=32767
	vm_says "and where it points to is known" '^guest: moved .*3 0 1000,3 1 32767,0 0 0'
}

services_kvp() {
	vm_says "the host's items are in the guest" "^guest: pool 0: 'vmm.test' = 'from the host'"
	has "in UTF-8" "^guest: pool 0: 'umlaut' = 'äöü €'"
	has "the guest's own name" 'vmm-guest' <(ctl kvp-get pool=auto key=FullyQualifiedDomainName)
	has "and its system's version" '6\.1' <(ctl kvp-get pool=auto key=OSVersion)
	does kvp-set pool=external key=later value=42
	vm_says "and arrives" "^guest: pool 0: 'later' = '42'"
	has "what the guest put into its pool is read" 'from the guest' <(ctl kvp-get pool=guest key=answer)
	does kvp-delete pool=external key=later
	has "what is not there is said to be so" 'ctl:' <(ctl kvp-get pool=guest key=nothing)
}

services_fcopy() {
	does fcopy from="$scratch/file" to=/tmp/copied create-path=true
	vm_says "and arrives whole" "^guest: copied $(md5sum <"$scratch/file" | cut -d ' ' -f 1)"
	has "a file that is there stays unless told otherwise" 'ctl:' <(ctl fcopy from="$scratch/file" to=/tmp/copied)
	has "a file that is not there is named" 'No such file' <(ctl fcopy from=/nonexistent to=/tmp/x)
}

services_vss() {
	does vss-freeze
	sleep 1
	is "nothing is written while frozen" "$(frozen_writes)" 0
	does vss-thaw
	vm_says "and writes go on" '^guest: written after the thaw'
}

# The guest says before and after each write to the file system that is frozen: how many it ended in a second.
frozen_writes() {
	local before after
	before=$(grep -ac '^guest: write ' "$log")
	sleep 1
	after=$(grep -ac '^guest: write ' "$log")
	echo $((after - before))
}

case_vmbus_panic() { # kernel synic
	args_of_hyperv "$1" "$2" vmbus_panic
	vm "${guest_args[@]}"
	is "ends with status 3" "$status" 3
	has "the guest's message is printed by vmm" '^vmm: .*sysrq triggered crash'
}

# Each protocol version that the module can be held to. Below 3.0 Linux itself does without VSS.
case_vmbus_old() {
	args_of_hyperv cloud user vmbus_old
	vm "${guest_args[@]}"
	is "ends with status 0" "$status" 0
	is "each version is agreed on and the services come up" \
		"$(grep -ao '^guest: version [0-9.]* services [0-9]*' "$log" | cut -d ' ' -f 3,5 | tr '\n' ,)" \
		"5.3 6,5.2 6,5.1 6,5.0 6,4.1 6,4.0 6,3.0 6,2.4 5,"
}

# Linux that uses synthetic timers in direct mode, which only the kvm backend has, loses its clock with hv_vmbus.
case_vmbus_reload() { # synic
	args_of_hyperv cloud "$1" vmbus_reload "vmm.bus=$([ "$1" = user ] && echo yes || echo no)"
	vm "${guest_args[@]}" --cpus 2
	is "ends with status 0" "$status" 0
	is "drivers go and come back, and the bus with them" "$(grep -ao '^guest: round [0-9]* services [0-9]*' "$log" | tr '\n' ,)" \
		"guest: round 1 services 6,guest: round 2 services 6,guest: round 3 services 6,"
	is "without a warning" "$(warnings "$log")" ""
}

case_vmbus_kexec() { # synic
	args_of_hyperv cloud "$1" vmbus_kexec
	vm "${guest_args[@]}" --memory 512M
	is "ends with status 0" "$status" 0
	is "the second kernel has the services too" "$(grep -ao '^guest: kernel [0-9] services [0-9]*' "$log" | tr '\n' ,)" \
		"guest: kernel 1 services 6,guest: kernel 2 services 6,"
}

case_vmbus_reboot() { # synic
	args_of_hyperv cloud "$1" vmbus_reboot
	vm "${guest_args[@]}" --cpus 2
	is "ends with status 0" "$status" 0
	is "each boot has the services" "$(grep -ao '^guest: boot [0-9] services [0-9]*' "$log" | tr '\n' ,)" \
		"guest: boot 0 services 6,guest: boot 1 services 6,guest: boot 2 services 6,"
}
