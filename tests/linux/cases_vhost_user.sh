# cases_vhost_user.sh - the cases of tests/linux about --vhost-user: a stock kernel's virtio drivers on Debian's own
# back-ends, qemu-storage-daemon's vhost-user-blk export and virtiofsd. Sourced by cases.sh.
# shellcheck shell=bash disable=SC2034,SC2154

cases_vhost_user() {
	echo "vhost-user-blk 2 case_vhost_user_blk cloud"
	echo "vhost-user-fs 1 case_vhost_user_fs"
}

args_of_vhost_user() { # kernel guest-case more-of-the-command-line
	args_of "$1" "$2" "${3:-}"
	guest_args+=(--initrd "$work/$1/initrd.vhost-user")
}

# A disk of qemu-storage-daemon at $scratch/NAME.sock; sets backend.
serve_disk() { # name file writable queues
	local read_only=on
	[ "$3" = off ] || read_only=off
	rm -f "$scratch/$1.sock"
	qemu-storage-daemon --blockdev "driver=file,node-name=file,filename=$2,read-only=$read_only" --export \
		"type=vhost-user-blk,id=export,node-name=file,addr.type=unix,addr.path=$scratch/$1.sock,writable=$3,num-queues=$4" \
		>>"$scratch/$1.log" 2>&1 &
	backend=$!
	wait_for_socket "$scratch/$1.sock" $backend
}

wait_for_socket() { # path pid
	until [ -S "$1" ] || ! kill -0 "$2" 2>/dev/null; do
		sleep 0.05
	done
	holds "$(basename "$1") is there" [ -S "$1" ]
}

stop_backends() { # pid...
	local pid
	for pid; do
		kill -KILL "$pid" 2>/dev/null
		wait "$pid"
	done
} 2>/dev/null

# A file system is made and filled, fio finds what it wrote, and the back-end is killed and started again meanwhile.
case_vhost_user_blk() { # kernel
	local tools disk round
	truncate -s 96M "$scratch/data.img"
	serve_disk tools "$work/tools.img" off 1
	tools=$backend
	serve_disk data "$scratch/data.img" on 2
	disk=$backend
	args_of_vhost_user "$1" vhost_user_blk
	vm_start "${guest_args[@]}" --cpus 2 --vhost-user "socket=$scratch/data.sock,device=blk,queues=2,reconnect=on" \
		--vhost-user "socket=$scratch/tools.sock,device=blk"
	for round in 1 2; do
		vm_says "fio has begun to write, $round" "^guest: writing $round" || break
		stop_backends "$disk"
		serve_disk data "$scratch/data.img" on 2
		disk=$backend
	done
	vm_end
	stop_backends "$disk" "$tools"
	is "ends with status 0" "$status" 0
	section disk >"$scratch/disk"
	is "what the kernel makes of the disk" "$(tr '\n' , <"$scratch/disk")" "size 196608,ro 0,queues 2,"
	has "the other one is read-only" '^ro 1' <(section tools)
	has "the file system has what was written" '^guest: contents good'
	has "fio finds what it wrote" '^guest: fio good 1'
	has "again" '^guest: fio good 2'
	has "the file system is good" '^guest: fsck good'
	has "and its contents still there" '^guest: contents still good'
	holds "the image has them" [ "$(/sbin/e2fsck -f -n "$scratch/data.img" >/dev/null 2>&1; echo $?)" = 0 ]
	is "the back-end came back twice" "$(grep -ac 'the back-end is back' "$log")" 2
	section dmesg >"$scratch/dmesg"
	is "no warning of the kernel's" "$(warnings "$scratch/dmesg")" ""
	lacks "no I/O error" 'I/O error|timed out' "$scratch/dmesg"
}

# The shared directory has some of the kernel's headers.
case_vhost_user_fs() {
	local daemon sums
	mkdir "$scratch/shared"
	mkdir "$scratch/shared/tree"
	cp -r /usr/include/linux/{netfilter_ipv4,can,usb,virtio_*.h} "$scratch/shared/tree"
	ln -s tree/virtio_pci.h "$scratch/shared/link"
	sums=$(cd "$scratch/shared" && find tree -type f | LC_ALL=C sort | xargs md5sum | md5sum | cut -d ' ' -f 1)
	/usr/lib/qemu/virtiofsd --socket-path="$scratch/fs.sock" -o "source=$scratch/shared,sandbox=chroot,cache=auto" -f \
		>"$scratch/virtiofsd.log" 2>&1 &
	daemon=$!
	wait_for_socket "$scratch/fs.sock" $daemon
	args_of_vhost_user cloud vhost_user_fs
	vm "${guest_args[@]}" --vhost-user "socket=$scratch/fs.sock,device=fs,tag=share"
	stop_backends $daemon
	is "ends with status 0" "$status" 0
	has "mounted" '^guest: mounted'
	has "the tree is the host's" "^guest: sums $sums"
	has "a symbolic link leads there" "^guest: link $(md5sum <"$scratch/shared/tree/virtio_pci.h" | cut -d ' ' -f 1)"
	has "a copy is the same" '^guest: copy good'
	has "after much coming and going" '^guest: stress good'
	is "the host has the copy" "$(cd "$scratch/shared/copy" && find tree -type f | LC_ALL=C sort | xargs md5sum | md5sum | cut -d ' ' -f 1)" "$sums"
	is "and nothing else" "$(cd "$scratch/shared" && echo *)" "copy link tree"
	section dmesg >"$scratch/dmesg"
	is "no warning of the kernel's" "$(warnings "$scratch/dmesg")" ""
}
