# cases_firmware.sh - the cases of tests/linux about --firmware: Debian's unmodified OVMF, that of its next release, and
# edk2's CLOUDHV.fd, with our EFI application (tests/efi) and a stock kernel, by fw_cfg and from a disk. Sourced by cases.sh.
# shellcheck shell=bash disable=SC2034,SC2154

OVMF=/usr/share/OVMF

cases_firmware() {
	echo "firmware-app-4M 1 case_firmware_app_4M"
	echo "firmware-app-2M 1 case_firmware_app_2M"
	echo "firmware-esp 1 case_firmware_esp"
	echo "firmware-next 1 case_firmware_next"
	echo "firmware-cloudhv 1 case_firmware_cloudhv"
	echo "firmware-kernel 1 case_firmware_kernel"
	echo "firmware-uki 1 case_firmware_uki"
	echo "firmware-disk 1 case_firmware_disk user"
	echo "firmware-debian 1 case_firmware_debian"
}

have_ovmf() { # file
	[ -e "$OVMF/$1.fd" ] && return
	ok "skipped: the package ovmf has no $1.fd here"
	return 1
}

# What tests/linux/run has had made for the case, or why not.
have_made() { # directory script
	[ -e "$work/$1" ] && return
	skip "$(tail -n 1 "$work/$2.log")"
	return 1
}

args_of_firmware() { # build words-for-the-application
	guest_args=(--firmware "$OVMF/$1.fd" --memory 256M --kernel "$work/app.efi" --cmdline "$2")
}

# "efi: KEY ..." lines of the last guest.
efi_says() { # key
	tr -d '\r' <"$log" | sed -n "s/^efi: $1 //p"
}

# What each run of the application must tell, whatever the firmware.
app_facts() { # ecam [seconds that its clock is ahead of UTC]
	local table ram now year month day hour minute second
	is "ends with status 0" "$status" 0
	lacks "nothing is bad" '^efi: BAD'
	lacks "vmm has nothing to complain of" '^vmm: '
	has "came to its end" '^efi: done'
	for table in APIC DSDT FACP MCFG SPCR WAET; do
		has "ACPI: $table" "^efi: acpi $table [0-9]+"
	done
	is "ECAM is where this firmware puts it" "$(efi_says ecam | sort -u)" "$1"
	is "SMBIOS structures" "$(efi_says smbios | tail -n 1)" "1 3 4 16 17 19 32 0 127"
	ram=$(efi_says ram-mib | tail -n 1)
	holds "RAM of $ram MiB" [ "$ram" -ge 254 -a "$ram" -le 256 ]
	read -r year month day hour minute second < <(efi_says time | tail -n 1)
	now=$(($(date +%s) + ${2:-0}))
	second=$(date -u -d "$year-$month-$day $hour:$minute:$second" +%s)
	holds "the time is the host's" [ $((now - second)) -ge -2 -a $((now - second)) -le "$LIMIT" ]
}

# And with OVMF, for which the machine is a Q35.
firmware_facts() { # ecam [seconds that its clock is ahead of UTC]
	app_facts "$@"
	has "ECAM is reserved in the memory map" "^efi: reserved $1 0x10000000"
	has "Q35's host bridge and LPC bridge" '^efi: pci 0x0 0x29c08086 '
	has "at 1f.0" '^efi: pci 0xf8 0x29188086 '
	lacks "the FADT has a FACS" '^efi: no facs'
}

# A variable is kept over a reset, and by --nvram over the end of vmm; boot services are left before the power-off. With
# --control there is a picture, which "screenshot" shows as it was drawn.
case_firmware_app_4M() {
	have_ovmf OVMF_CODE_4M || return 0
	args_of_firmware OVMF_CODE_4M "count reset exit"
	vm "${guest_args[@]}" --nvram "$scratch/nvram"
	firmware_facts 0xb0000000
	is "a variable counts, over a reset" "$(efi_says count | tr '\n' ' ')" "1 2 "
	is "--nvram made a file" "$(stat -c %s "$scratch/nvram")" "$(stat -c %s "$OVMF/OVMF_VARS_4M.fd")"
	is "without --control there is no picture" "$(efi_says gop | sort -u)" 0
	args_of_firmware OVMF_CODE_4M "count exit draw"
	mkfifo "$scratch/keys"
	exec 7<>"$scratch/keys"
	input=$scratch/keys vm_start "${guest_args[@]}" --nvram "$scratch/nvram" --control "$scratch/ctl"
	vm_says "the application draws" '^efi: drawn' && firmware_picture
	echo >&7
	vm_end
	exec 7>&-
	is "ends with status 0" "$status" 0
	lacks "nothing is bad" '^efi: BAD'
	lacks "vmm has nothing to complain of" '^vmm: '
	is "which the next run goes on with" "$(efi_says count)" 3
}

# The picture that the guest has drawn, and places where none can be put.
firmware_picture() {
	local width height
	read -r width height < <("$vmm" ctl --json "$scratch/ctl" screenshot file="$scratch/picture.png" |
		sed -n 's/.*"width": *\([0-9]*\), *"height": *\([0-9]*\).*/\1 \2/p')
	holds "a picture of ${width:-no width} by ${height:-no height}" [ "${width:-0}" -ge 640 -a "${height:-0}" -ge 480 ]
	is "every pixel of it is as drawn" "$("$here/../efi/picture" "$scratch/picture.png" "${width:-0}" "${height:-0}" 2>&1)" ""
	has "a place for no file is told" 'No such file' <("$vmm" ctl "$scratch/ctl" screenshot file=/nonexistent/x.png 2>&1)
}

# Without --nvram variables last as long as vmm. The clock is in local time here.
case_firmware_app_2M() {
	have_ovmf OVMF_CODE || return 0
	args_of_firmware OVMF_CODE "count reset"
	TZ=XXX-5:30 vm "${guest_args[@]}" --rtc local
	firmware_facts 0xb0000000 19800
	is "a variable counts, over a reset" "$(efi_says count | tr '\n' ' ')" "1 2 "
}

# The same application as the loader of a disk, of two: the one to boot from is the second.
case_firmware_esp() {
	have_ovmf OVMF_CODE_4M || return 0
	truncate -s 1M "$scratch/empty.img"
	vm --firmware "$OVMF/OVMF_CODE_4M.fd" --memory 256M --disk "$scratch/empty.img" --disk "$work/esp.img,readonly=on,boot=on"
	firmware_facts 0xb0000000
	has "virtio-blk is on the bus" '^efi: pci 0x[0-9a-f]+ 0x10421af4 '
	# And of a medium, as installers come on.
	vm --firmware "$OVMF/OVMF_CODE_4M.fd" --memory 256M --vmbus --disk "$work/boot.iso,boot=on"
	firmware_facts 0xb0000000
	has "virtio-blk is on the bus" '^efi: pci 0x[0-9a-f]+ 0x10421af4 '
}

# The layout of OVMF's builds of 2024 and later: the tables are as the firmware has placed ECAM and BARs. From a disk, with
# a reset that keeps a variable, and without boot services at the end.
case_firmware_next() {
	local file next=$work/ovmf-next
	have_made ovmf-next mkovmf || return 0
	vm --firmware "$next/OVMF_CODE_4M.fd" --nvram "$scratch/nvram" --memory 256M --disk "$work/esp-reset.img,readonly=on,boot=on"
	firmware_facts 0xe0000000
	is "a variable counts, over a reset" "$(efi_says count | tr '\n' ' ')" "1 2 "
	has "the window for BARs is its own" '^efi: window 0x80000000 0xdfffffff'
	has "virtio-blk has its BARs there" '^efi: pci 0x8 0x10421af4 0x80[0-9a-f]{6} 0x80[0-9a-f]{6} '
	holds "there are builds for SMM" [ -e "$next/OVMF_CODE_4M.secboot.fd" ]
	for file in "$next"/*.secboot*.fd; do
		vm --firmware "$file"
		is "${file##*/} ends with status 1" "$status" 1
		has "after telling why" '^vmm: --firmware .*\.secboot.*: was built for System Management Mode'
		is "in one line" "$(wc -l <"$log")" 1
	done
}

# CLOUDHV.fd is an ELF file with a PVH entry. The memory map and the ACPI tables come to it by hvm_start_info, SMBIOS from
# where Cloud Hypervisor has it. It loses FACS, which is in no XSDT, and its variables at a reset.
case_firmware_cloudhv() {
	have_made cloudhv mkcloudhv || return 0
	vm --firmware "$work/cloudhv/CLOUDHV.fd" --memory 256M --disk "$work/esp-reset.img,readonly=on,boot=on"
	app_facts 0xe0000000
	is "it starts again after a reset" "$(efi_says boot | tr '\n' ' ')" "1 2 "
	has "the host bridge that it knows" '^efi: pci 0x0 0xd578086 '
	has "virtio-blk has its BARs where this firmware puts them" '^efi: pci 0x8 0x10421af4 0xc0[0-9a-f]{6} 0xc0[0-9a-f]{6} '
}

# The kernel comes by fw_cfg and is started by its EFI stub; a device is there too, so that BARs are. With a firmware it is
# offered synthetic timers, whoever does the SynIC's work.
case_firmware_kernel() {
	local begin end
	have_ovmf OVMF_CODE_4M || return 0
	args_of cloud facts console=ttyS0
	begin=$(date +%s)
	vm --firmware "$OVMF/OVMF_CODE_4M.fd" "${guest_args[@]}" --memory 512M --device pci-test --hyperv synic=user
	end=$(date +%s)
	is "ends with status 0" "$status" 0
	has "everything was printed" '^== end'
	section dmesg >"$scratch/dmesg"
	has "booted by EFI" 'efi: EFI v[0-9.]+ by' "$scratch/dmesg"
	has "SMBIOS names the machine" 'DMI: vmm vmm virtual machine' "$scratch/dmesg"
	has "ECAM is used" 'MMCONFIG .*\[mem 0xb0000000-' "$scratch/dmesg"
	facts_cpus 1
	facts_console com1
	facts_time "$begin" "$end"
	facts_interrupts 1
	has "the synthetic timers interrupt" 'HVS: .*[1-9]' "$scratch/interrupts"
	facts_log
	lacks "no BAR had to be moved" "BAR [0-9]+: (no space|failed|can't)|address conflict" "$scratch/dmesg"
	has "the test device's BARs have addresses" '^0000:00:01\.0 bar0 0x' <(section pci)
	is "no warning of the kernel's" "$(warnings "$scratch/dmesg")" ""
}

# What the two kernels of firmware-uki have to say about something, each with a comma.
uki_says() { # key
	sed -n "s/^$1 //p" "$scratch/boots" | tr '\n' ,
}

# Linux started by the firmware without a boot loader, twice from one image that it has as its disk: as a unified kernel image
# that is the loader of an EFI system partition, and by its own EFI stub as the loader of another one. The second boot is by
# EFI variables that the first one has written: the boot option with command line and initrd, and the order to take it next.
case_firmware_uki() {
	local wanted
	have_ovmf OVMF_CODE_4M || return 0
	vm --firmware "$OVMF/OVMF_CODE_4M.fd" --nvram "$scratch/nvram" --memory 512M --vmbus \
		--disk "$work/uki.img,readonly=on,boot=on"
	is "ends with status 0" "$status" 0
	is "init is reached twice" "$(grep -ac '^vmm-guest: init reached' "$log")" 2
	section boot >"$scratch/boots"
	is "the image is the one disk, in both boots" "$(uki_says disks)" "sda ,sda ,"
	is "with its partitions" "$(uki_says partitions)" "2,2,"
	wanted=$(dd if="$work/uki.img" bs=1M count=1 status=none | md5sum)
	is "and its contents" "$(uki_says start)" "$wanted,$wanted,"
	has "the first kernel is started by systemd's stub" '^stub systemd-stub [0-9]' "$scratch/boots"
	is "the second one is not" "$(grep -c '^stub .' "$scratch/boots")" 1
	is "but by the boot option that the first one has set" "$(uki_says current | cut -d , -f 2)" 0a0a
	is "which is kept as it was written" "$(uki_says option | cut -d , -f 2)" "$(md5sum <"$work/boot-option")"
	has "and was for once" '^next none' "$scratch/boots"
	section cmdline >"$scratch/cmdlines"
	has "the command line of the image" '^quiet .* vmm\.case=firmware_uki$' "$scratch/cmdlines"
	has "and of the boot option" '^initrd=.initrd quiet .* vmm\.second=yes$' "$scratch/cmdlines"
	section dmesg >"$scratch/dmesg"
	is "booted by EFI, each time" "$(grep -ac 'efi: EFI v[0-9.]* by' "$scratch/dmesg")" 2
	is "no warning of the kernel's" "$(warnings "$scratch/dmesg")" ""
	lacks "vmm has nothing to complain of" '^vmm: '
}

# What GRUB on an image of boot_image is to do.
grub_says() { # image kernel-command-line
	printf '%s\n' 'set timeout=0' "linux /vmlinuz $2" 'initrd /initrd' 'boot' >"$scratch/grub.cfg"
	mcopy -o -i "$1@@1M" "$scratch/grub.cfg" ::EFI/BOOT/grub.cfg
}

# One image: OVMF and GRUB load the kernel from it by virtio-blk, which has the disk on VMBus then, and writes to it; a
# reset goes the same way.
case_firmware_disk() { # synic
	local sum
	have_ovmf OVMF_CODE_4M || return 0
	cp --sparse=always "$work/boot.img" "$scratch/boot.img"
	grub_says "$scratch/boot.img" "quiet cryptomgr.notests console=ttyS0 vmm.test=run vmm.case=firmware_disk"
	vm --firmware "$OVMF/OVMF_CODE_4M.fd" --memory 512M --vmbus --hyperv "synic=$1" --disk "$scratch/boot.img,boot=on"
	is "ends with status 0" "$status" 0
	is "there is one disk, in both boots" "$(tr -d '\r' <"$log" | sed -n 's/^guest: disks //p' | sort | uniq -c | tr -s ' ')" " 2 sda "
	lacks "and no virtio device" ' 0x1af4 ' <(section pci)
	sum=$(grep -ao 'guest: written [0-9a-f]*' "$log" | cut -d ' ' -f 3)
	has "what was written is there in the second boot" "^guest: found ${sum:-nothing} "
	has "all of it" '^guest: contents good'
	has "and in the image" "${sum:-nothing}" \
		<(dd if="$scratch/boot.img" of="$scratch/part" bs=1M skip=48 status=none && /sbin/debugfs -R "cat /sums" "$scratch/part" 2>/dev/null | md5sum)
	holds "whose file system is good" /sbin/e2fsck -f -n "$scratch/part" >/dev/null 2>&1
	section dmesg >"$scratch/dmesg"
	has "booted by EFI" 'efi: EFI v[0-9.]+ by' "$scratch/dmesg"
	is "no warning of the kernel's" "$(warnings "$scratch/dmesg")" ""
	lacks "no I/O error" 'I/O error|Sense Key|timed out' "$scratch/dmesg"
	lacks "vmm has nothing to complain of" '^vmm: '
}

# A whole Debian on one image, loaded by OVMF and GRUB. Somebody logs in and restarts it, which ends the first run. In the
# second one, with the SynIC's other backend, it finds what was written to the disk and to an EFI variable, and powers itself
# off; since boots of it are slow, without what comes after its basic services (debian-again).
case_firmware_debian() {
	local variable=/sys/firmware/efi/efivars/VmmTest-6d6d7674-6573-4d74-8000-000000000001
	have_ovmf OVMF_CODE_4M || return 0
	[ "$(id -u)" = 0 ] || { skip "only root can make a Debian root file system"; return 0; }
	holds "tests/linux/run has made a disk with Debian" [ -e "$work/debian.img" ]
	[ -e "$work/debian.img" ] || return 0
	cp --sparse=always "$work/debian.img" "$scratch/debian.img"
	mkfifo "$scratch/in"
	exec 7<>"$scratch/in"
	input=$scratch/in debian_boot kvm "" --no-reboot
	if vm_says "Debian boots to its login prompt" '^vmm login: '; then
		echo root >&7
		vm_says "which asks for a password" '^Password: ' && echo vmm >&7
		vm_says "and gives a shell" 'root@vmm:~# ' &&
			echo 'echo "systemd: $(systemctl is-system-running --wait)"; systemctl --failed | cat; echo "sees" /sys/block/*; seq 100000 >numbers && printf "\7\0\0\0kept" >'"$variable"' && sync; echo "status $?"; reboot' >&7
		vm_says "which does what it is told" '^status 0'
	fi
	debian_ends
	exec 7>&-
	has "systemd is content" 'systemd: running'
	has "no unit failed" '^0 loaded units listed'
	has "it has restarted" 'reboot: Restarting system'
	debian_boot user "fsck.mode=skip systemd.run=/root/again systemd.run_success_action=poweroff"
	debian_ends
	has "what was written is there after the restart" "^numbers $(seq 100000 | md5sum)"
	has "and the EFI variable" '^variable kept'
	has "it has powered itself off" 'reboot: Power down'
	dd if="$scratch/debian.img" of="$scratch/part" bs=1M skip=48 conv=sparse status=none
	holds "the file system is good" /sbin/e2fsck -f -n "$scratch/part" >/dev/null 2>&1
}

debian_boot() { # synic more-of-the-command-line more-arguments
	grub_says "$scratch/debian.img" "quiet cryptomgr.notests console=ttyS0 root=/dev/sda2 $2"
	vm_start --firmware "$OVMF/OVMF_CODE_4M.fd" --nvram "$scratch/nvram" --memory 512M --vmbus --hyperv "synic=$1" \
		--disk "$scratch/debian.img,boot=on" "${@:3}"
}

debian_ends() {
	vm_end
	is "ends with status 0" "$status" 0
	has "there is one disk" 'sees /sys/block/sda.?$'
	is "no warning of the kernel's" "$(warnings "$log")" ""
	lacks "no I/O error" 'I/O error|Sense Key|timed out'
	lacks "vmm has nothing to complain of" '^vmm: '
}
