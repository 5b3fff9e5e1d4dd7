# cases_disk.sh - the cases of tests/linux about --disk: a stock kernel's hv_storvsc, sd and sr against our controller.
#
# Sourced by cases.sh. The images are in memory (the scratch directory), or on an ext4 of their own where O_DIRECT is to
# be used; $work/tools.img has Debian's mkfs.ext4, e2fsck and fio for the guest.
# shellcheck shell=bash disable=SC2034,SC2154

cases_disk() {
	echo "disk-debian 1 case_disk_debian"
	echo "disk-amd64 1 case_disk amd64 user plain"
	echo "disk-direct 1 case_disk cloud kvm direct"
	echo "disk-fio 2 case_disk_fio amd64"
	echo "disk-kill 1 case_disk_kill"
	echo "disk-64 1 case_disk_many 64"
	echo "disk-errors 1 case_disk_errors"
	echo "disk-refused 1 case_disk_refused"
	echo "disk-virtio 1 case_disk_virtio cloud"
}

args_of_disk() { # kernel synic guest-case more-of-the-command-line
	args_of "$1" "$3" "${4:-}"
	guest_args+=(--initrd "$work/$1/initrd.disk" --vmbus --hyperv "synic=$2")
}

tools_disk() { guest_args+=(--disk "$work/tools.img,readonly=on,serial=tools"); }

host_modules() { # path... below the emulated host's modules; what is there already, or built in, is fine
	local name busybox=$VMM_CACHE/busybox/busybox
	[ -x "$busybox" ] || busybox=/bin/busybox
	for name; do
		"$busybox" insmod "${VMM_HOST_MODULES:-/nonexistent}/$name.ko" 2>/dev/null
	done
}

# A place for images where O_DIRECT works: ext4 on a loop device, which must be given back.
direct_place() {
	host_modules drivers/block/loop lib/crc16 fs/mbcache crypto/crc32c_generic fs/jbd2/jbd2 fs/ext4/ext4
	truncate -s 200M "$scratch/direct.ext4"
	/sbin/mkfs.ext4 -q -b 4096 "$scratch/direct.ext4" && mkdir "$scratch/direct" &&
		mount -o loop "$scratch/direct.ext4" "$scratch/direct" 2>/dev/null
}

# A block device of 64 MiB whose second half is broken; sets loop.
broken_device() {
	host_modules drivers/block/loop drivers/md/dm-mod
	truncate -s 64M "$scratch/half.img"
	loop=$(losetup -f --show "$scratch/half.img") &&
		printf '%s\n' "0 65536 linear $loop 0" "65536 65536 error" | /sbin/dmsetup create vmm-test --noudevsync
} 2>/dev/null

blocks_of() { stat -c %b "$1"; }

# After a guest that has discarded: its image, and what it and vmm say.
disk_is_clean() { # image blocks-left-in-it-at-most
	local after
	after=$(blocks_of "$1")
	holds "and frees blocks in the image ($((after / 2)) KiB are left)" [ "$after" -lt "$2" ]
	section dmesg >"$scratch/dmesg"
	is "no warning of the kernel's" "$(warnings "$scratch/dmesg")" ""
	lacks "no I/O error" 'I/O error|Sense Key|timed out' "$scratch/dmesg"
	lacks "vmm has nothing to complain of" '^vmm: '
}

case_disk() { # kernel synic plain|direct
	local place=$scratch key= sum how hows="reset reload" more=
	if [ "$3" = direct ]; then
		direct_place || { ok "skipped: no ext4 on a loop device here"; return; }
		place=$scratch/direct key=,direct=on hows+=" kexec" more=vmm.kexec=yes
	fi
	truncate -s 100M "$place/data.img"
	args_of_disk "$1" "$2" disk "$more"
	guest_args+=(--disk "$place/data.img$key,serial=data" --disk "$work/hello.iso")
	tools_disk
	vm "${guest_args[@]}" --stats "$scratch/stats"
	is "ends with status 0" "$status" 0
	section queue >"$scratch/queue"
	is "what the kernel makes of the disk" "$(tr '\n' , <"$scratch/queue")" \
		"logical_block_size 512,physical_block_size 4096,max_hw_sectors_kb 2048,write_cache write back,fua 1,rotational 0,discard_granularity 4096,ro 0,queues 1,provisioning unmap,"
	has "a read-only one is" '^ro 1' <(section tools)
	has "the DVD is mounted" '^guest: iso hello'
	sum=$(grep -ao '^guest: written [0-9a-f]*' "$log" | cut -d ' ' -f 3)
	for how in $hows; do
		has "what was synced is there after a $how" "^guest: found after $how ${sum:-nothing} "
		has "all of it" "^guest: contents after $how good"
	done
	has "the file system is good" '^guest: fsck good'
	has "UNMAP works" '^guest: trimmed'
	disk_is_clean "$place/data.img" 30000
	[ "$3" != direct ] || umount -l "$scratch/direct"
}

# Without VMBus: virtio-blk.
case_disk_virtio() { # kernel
	local sum
	truncate -s 64M "$scratch/data.img"
	args_of "$1" disk_virtio
	guest_args+=(--initrd "$work/$1/initrd.disk" --disk "$scratch/data.img,serial=data" --disk "$work/hello.iso")
	tools_disk
	vm "${guest_args[@]}"
	is "ends with status 0" "$status" 0
	is "what the kernel makes of the disk" "$(section queue | tr '\n' ,)" \
		"logical_block_size 512,physical_block_size 4096,max_segments 254,write_cache write back,discard_granularity 4096,ro 0,"
	has "a read-only one is" '^ro 1' <(section tools)
	is "a DVD is one with larger blocks" "$(section dvd | grep -E 'logical|ro ' | tr '\n' ,)" "logical_block_size 2048,ro 1,"
	has "which is mounted" '^guest: iso hello'
	has "fio finds what it wrote" '^guest: fio good'
	sum=$(grep -ao '^guest: written [0-9a-f]*' "$log" | cut -d ' ' -f 3)
	has "what was synced is there after a reset" "^guest: found after reset ${sum:-nothing} "
	has "all of it" "^guest: contents after reset good"
	has "the file system is good" '^guest: fsck good'
	has "discard works" '^guest: trimmed'
	disk_is_clean "$scratch/data.img" 20000
}

case_disk_many() { # count
	local i args=()
	for ((i = 0; i < $1; i++)); do
		truncate -s 1M "$scratch/$i.img"
		args+=(--disk "$scratch/$i.img,serial=disk-$i")
	done
	args_of_disk cloud user disk_many "vmm.disks=$1"
	vm "${guest_args[@]}" "${args[@]}"
	is "ends with status 0" "$status" 0
	has "all are there" "^guest: disks $1"
	is "each is itself" "$(for ((i = 0; i < $1; i++)); do head -n 1 "$scratch/$i.img" | tr -d '\0'; done | tr '\n' ,)" \
		"$(for ((i = 0; i < $1; i++)); do echo "disk-$i"; done | tr '\n' ,)"
}

# A host without room, and a device that is broken in its second half.
case_disk_errors() {
	local loop=
	mkdir "$scratch/small"
	mount -t tmpfs -o size=12m none "$scratch/small"
	truncate -s 64M "$scratch/small/data.img"
	args_of_disk cloud user disk_errors
	guest_args+=(--disk "$scratch/small/data.img,serial=small")
	if broken_device; then
		guest_args+=(--disk "/dev/$(cd /sys/block && echo dm-*),serial=broken,direct=on")
	else
		[ -z "$loop" ] || losetup -d "$loop"
		loop=
	fi
	tools_disk
	vm "${guest_args[@]}"
	umount -l "$scratch/small"
	is "ends with status 0" "$status" 0
	has "the guest is told that there is no space" '^guest: stopped by No space left on device'
	has "what was acknowledged is there" '^guest: all there'
	if [ -z "$loop" ]; then
		skip "no device mapper here"
		return 0
	fi
	/sbin/dmsetup remove --noudevsync vmm-test
	losetup -d "$loop"
	has "the good half is read" '^guest: read good'
	has "and written" '^guest: written good'
	has "the bad half is not read" '^guest: read: (No data available|I/O error|Input/output error)'
	has "nor written" '^guest: write: (No data available|I/O error|Input/output error)'
	has "the guest knows why: reading" 'Unrecovered read error'
	has "and writing" 'Write error'
}

# vmm is killed while fio writes: its third job, with O_SYNC and without an end, has begun to fill the image. What the jobs
# before it have written and flushed must be there.
case_disk_kill() {
	local end=$((SECONDS + LIMIT)) blocks=$((2 * 2048 + 100)) # two jobs of 1 MiB, and some of the third
	truncate -s 128M "$scratch/data.img"
	args_of_disk cloud user disk_kill
	guest_args+=(--disk "$scratch/data.img,serial=data")
	tools_disk
	vm_start "${guest_args[@]}" --trace "block_done,file=$scratch/trace"
	if vm_says "blocks are written and synced" '^guest: synced 2'; then
		until [ "$(blocks_of "$scratch/data.img")" -ge $blocks ] || [ $SECONDS -ge $end ]; do sleep 0.01; done
	fi
	{ kill -KILL "$vm_pid"; vm_end; } 2>/dev/null
	holds "more are on their way as the end comes" [ "$(blocks_of "$scratch/data.img")" -ge $blocks ]
	# 256 writes with O_SYNC, and the end of the second job.
	holds "the host was asked for each flush" [ "$(grep -c 'block_done.* kind 2 .*result 0' "$scratch/trace")" -ge 257 ]
	args_of_disk cloud user disk_kill vmm.second=yes
	guest_args+=(--disk "$scratch/data.img,serial=data")
	tools_disk
	vm "${guest_args[@]}"
	is "ends with status 0" "$status" 0
	is "all that was synced is there" "$(grep -ac '^guest: verified' "$log")" 2
	has "and fio would have told" '^guest: not there: 99'
}

case_disk_fio() { # kernel
	truncate -s 32M "$scratch/data.img"
	args_of_disk "$1" user disk_fio
	guest_args+=(--disk "$scratch/data.img,serial=data")
	tools_disk
	vm "${guest_args[@]}" --cpus 2
	is "ends with status 0" "$status" 0
	has "fio finds what it wrote" '^guest: fio good'
	has "a queue for each CPU" '^queues 2' <(section queue)
	section dmesg >"$scratch/dmesg"
	is "no warning of the kernel's" "$(warnings "$scratch/dmesg")" ""
	lacks "no I/O error" 'I/O error|Sense Key|timed out' "$scratch/dmesg"
}

# Debian from its first process to its last on a disk of ours; somebody logs in and does something.
case_disk_debian() {
	[ "$(id -u)" = 0 ] || { skip "only root can make a Debian root file system"; return 0; }
	holds "tests/linux/mkdebian has made a root file system" [ -e "$work/root.img" ]
	[ -e "$work/root.img" ] || return 0
	cp --sparse=always "$work/root.img" "$scratch/root.img"
	mkfifo "$scratch/in"
	input=$scratch/in
	exec 7<>"$scratch/in"
	vm_start --kernel "$work/cloud/vmlinuz" --initrd "$work/initrd.root" --memory 512M --vmbus --hyperv synic=user \
		--disk "$scratch/root.img" --cmdline "quiet cryptomgr.notests root=/dev/sda"
	if vm_says "Debian boots to its login prompt" '^vmm login: '; then
		echo root >&7
		vm_says "which asks for a password" '^Password: ' && echo vmm >&7
		vm_says "and gives a shell" 'root@vmm:~# ' &&
			echo 'echo "systemd: $(systemctl is-system-running --wait)"; systemctl --failed | cat; cat /proc/modules; seq 100000 >numbers; sync; echo "status $?"' >&7
		vm_says "which does what it is told" '^status 0' && kill -TERM "$vm_pid"
	fi
	vm_end
	exec 7>&-
	is "ends with status 0 on SIGTERM" "$status" 0
	has "systemd is content" 'systemd: running'
	has "no unit failed" '^0 loaded units listed'
	has "udev has loaded the driver of the integration services" '^hv_utils '
	has "the shutdown service has ended it, in order" 'reboot: Power down'
	is "what was written is on the disk" "$(/sbin/debugfs -R "cat /root/numbers" "$scratch/root.img" 2>/dev/null | md5sum)" \
		"$(seq 100000 | md5sum)"
	holds "whose file system is good" /sbin/e2fsck -f -n "$scratch/root.img" >/dev/null 2>&1
	lacks "no I/O error" 'I/O error|Sense Key|timed out'
	is "no warning of the kernel's" "$(warnings "$log")" ""
	lacks "vmm has nothing to complain of" '^vmm: [^S]' # SIGTERM it mentions
}

case_disk_refused() {
	printf 'QFI\373' >"$scratch/image.qcow2"
	vm --kernel "$work/cloud/vmlinuz" --vmbus --disk "$scratch/image.qcow2"
	is "a qcow2 image: status 1" "$status" 1
	has "and what to do" 'qemu-img convert -f qcow2 -O raw'
}
