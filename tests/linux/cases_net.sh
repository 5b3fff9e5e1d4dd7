# cases_net.sh - the cases of tests/linux about --net: a stock kernel's hv_netvsc, over a tap and over passt.
#
# Sourced by cases.sh. Each case has a tap and a subnet of its own; the guest is .2 in it. Where this user may not make a
# tap, or something is not installed, a case is skipped.
# shellcheck shell=bash disable=SC2034,SC2154

cases_net() {
	echo "net-offload 1 case_net_offload 12"
	echo "net-tap-amd64 1 case_net_tap amd64 user 11"
	echo "net-tap-kvm 1 case_net_tap cloud kvm 13"
	echo "net-queues 4 case_net_queues 14"
	echo "net-link 1 case_net_link 17"
	echo "net-reboot 1 case_net_reboot 19"
	echo "net-bridge 1 case_net_bridge 20"
	echo "net-user 1 case_net_user 21"
}

skip() { printf 'ok - linux: %s # SKIP %s\n' "$case_name" "$1" >>"$scratch/tap"; }

args_of_net() { # kernel synic guest-case subnet more-of-the-command-line
	args_of "$1" "$3" "vmm.net=10.77.$4 ${5:-}"
	guest_args+=(--initrd "$work/$1/initrd.net" --vmbus --hyperv "synic=$2" --control "$scratch/ctl"
		--stats "$scratch/stats.json")
}

module() { # file below kernel/, of the emulated host
	[ -z "${VMM_HOST_MODULES:-}" ] || grep -q "^$(basename "$1" | tr - _) " /proc/modules ||
		busybox insmod "$VMM_HOST_MODULES/$1.ko" 2>/dev/null || true
}

# A tap vmmN with the address 10.77.N.1; false after saying why not.
tap() { # subnet [option of ip tuntap]
	local program
	for program in ip iperf3 ethtool busybox; do
		command -v "$program" >/dev/null || { skip "$program is not installed"; return 1; }
	done
	module drivers/net/tun
	tap=vmm$1
	if ! ip tuntap add dev "$tap" mode tap ${2:-} 2>"$scratch/why"; then
		skip "no tap: $(tr '\n' ' ' <"$scratch/why")"
		return 1
	fi
	ip addr add "10.77.$1.1/24" dev "$tap"
	ip link set "$tap" mtu 9000 up
	ip link set lo up
}

# iperf3 for one guest after the other; a file for the guest to fetch, and a program that sums up one it sends.
serve() { # subnet
	iperf3 -s -B "10.77.$1.1" >/dev/null 2>&1 &
	servers=$!
	pages
	busybox httpd -f -p "10.77.$1.1:80" -h "$scratch/www" &
	servers+=" $!"
}
pages() {
	mkdir -p "$scratch/www/cgi-bin"
	# Text: busybox's wget sends no zeroes.
	head -c 400000 /dev/urandom | base64 >"$scratch/www/file"
	sum=$(md5sum <"$scratch/www/file" | cut -d ' ' -f 1)
	printf '#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n"\nmd5sum | cut -d " " -f 1\n' >"$scratch/www/cgi-bin/sum"
	chmod +x "$scratch/www/cgi-bin/sum"
}
end_net() {
	# shellcheck disable=SC2086
	[ -z "${servers:-}" ] || { kill $servers; wait $servers; } 2>/dev/null
	servers=
	ip link del "$tap" 2>/dev/null
	true
}

figure() { sed -n "s/^ *\"$1\": \"*\([a-z0-9]*\).*/\1/p" "$scratch/stats.json" | head -n 1; }

# What holds of each guest that has moved data.
net_is_clean() {
	is "ends with status 0" "$status" 0
	is "nothing malformed, nothing stray" "$(figure tx_errors),$(figure rx_errors),$(figure strays)" 0,0,0
	lacks "vmm has nothing to complain of" '^vmm: '
	is "no warning of the kernel's" "$(warnings "$log")" ""
	lacks "and none of the driver's" 'hv_netvsc.*(nvalid|fail|unable|error|overflow)'
}

case_net_tap() { # kernel synic subnet
	tap "$3" || return 0
	serve "$3"
	args_of_net "$1" "$2" net_tap "$3"
	vm "${guest_args[@]}" --net "tap=$tap,mac=02:00:00:00:00:$3"
	end_net
	has "the card has the address it was given" "^guest: mac 02:00:00:00:00:$3"
	has "ping" '^guest: ping 3'
	has "TCP to the host" '^guest: up [1-9]'
	has "TCP from the host" '^guest: down [1-9]'
	has "a file arrives whole" "^guest: file $sum"
	has "segmentation is left to the host" '^guest: tcp-segmentation-offload: on'
	holds "which does it" [ "$(figure tx_segments)" -gt 0 ]
	holds "no more calls than frames" [ "$(figure tx_calls)" -le "$(figure tx_frames)" ]
	net_is_clean
}

# Each offload on and off, two MTUs, and a VLAN, in one boot. Data are right in both directions, and tests/linux/sums.c on
# both sides finds no wrong checksum, and finds that the guest leaves to the card what it should.
case_net_offload() { # subnet
	local phase
	tap "$1" || return 0
	for phase in net/llc/llc net/802/stp net/802/garp net/802/mrp net/8021q/8021q; do
		module "$phase"
	done
	ip -6 addr add "fd77:0:0:$1::1/64" dev "$tap" nodad
	ip link add link "$tap" name "$tap.5" type vlan id 5
	echo 1 >"/proc/sys/net/ipv6/conf/$tap.5/disable_ipv6" # it would speak up by itself
	ip addr add "10.78.$1.1/24" dev "$tap.5"
	ip link set "$tap.5" up
	serve "$1"
	iperf3 -s -B "fd77:0:0:$1::1" >/dev/null 2>&1 &
	servers+=" $!"
	busybox httpd -f -p "10.78.$1.1:80" -h "$scratch/www" &
	servers+=" $!"
	"$work/sums" "$tap" >"$scratch/sent" &
	servers+=" $!"
	args_of_net cloud user net_offload "$1"
	vm "${guest_args[@]}" --net "tap=$tap"
	end_net
	section received | grep -v '^sums:' >"$scratch/received"
	is "with each of 14 settings a file arrives whole, and goes out whole" \
		"$(grep -ac "^guest: phase [0-9]*: got $sum sent $sum" "$log")" 14
	is "and TCP in IPv6 goes both ways" "$(grep -acE '^guest: phase [0-9]+: (up|down) ' "$log")" 24
	has "UDP too" '^guest: phase 1: udp good'
	has "and without offloads" '^guest: phase 12: udp good'
	net_sums
	net_is_clean
}

# Both lists have a line a phase: phase N plain N partial N segments N longest N tagged N wrong N.
seen() { # sent or received, phase, field
	awk -v phase="$2" -v field="$3" '$1 == "phase" && $2 == phase {
		for (i = 3; i < NF; i += 2) if ($i == field) print $(i + 1) }' "$scratch/$1"
}
net_sums() {
	local side phase
	for side in sent received; do
		is "$side: all phases" "$(awk '$1 == "phase" { print $2 }' "$scratch/$side" | tr '\n' ' ')" "1 2 3 4 5 6 7 8 9 10 11 12 13 14 "
		is "$side: no wrong checksum" "$(grep -E '^wrong|wrong [1-9]' "$scratch/$side")" ""
		holds "$side: tags in the VLAN" [ "$(seen $side 13 tagged)" -gt 20 -a "$(seen $side 14 tagged)" -gt 20 ]
		is "$side: and nowhere else" "$(awk '$1 == "phase" && $2 < 13' "$scratch/$side" | grep -v 'tagged 0 ')" ""
	done
	for phase in 1 4 7 8 9 10 13; do
		holds "phase $phase: the guest leaves segmentation to the card" [ "$(seen sent $phase segments)" -gt 0 ]
	done
	for phase in 2 11; do
		is "phase $phase: the guest cuts segments" "$(seen sent $phase segments)" 0
		holds "and leaves sums to the card" [ "$(seen sent $phase partial)" -gt 50 ]
	done
	for phase in 3 12 14; do
		is "phase $phase: the guest computes sums" "$(seen sent $phase segments),$(seen sent $phase partial)" 0,0
		holds "of all it sends" [ "$(seen sent $phase plain)" -gt 50 ]
	done
	is "MTU 1500 is kept to" "$(seen sent 3 longest)" 1514
	is "and MTU 9000" "$(seen sent 12 longest)" 9014
	is "also by what arrives, when nobody puts it together" "$(seen received 12 longest)" 9014
}

# Four, then two, then four again.
case_net_queues() { # subnet
	local n
	tap "$1" multi_queue || return 0
	serve "$1"
	args_of_net amd64 user net_queues "$1"
	vm "${guest_args[@]}" --cpus 4 --net "tap=$tap,queues=4"
	end_net
	is "the guest uses so many channels" "$(grep -ao '^guest: channels [0-9]*' "$log" | cut -d ' ' -f 3 | tr '\n' ' ')" "4 2 4 "
	for n in 4 2; do
		has "$n: 24 flows to the host" "^guest: $n up [1-9]"
		has "$n: 24 flows from the host" "^guest: $n down [1-9]"
		is "$n: each channel has brought and taken frames" \
			"$(section "queues $n" | grep -cE '(rx|tx)_queue_[0-9]_packets: [1-9]')" $((2 * n))
	done
	net_is_clean
}

# The link goes down and up; the driver goes and comes.
case_net_link() { # subnet
	tap "$1" || return 0
	args_of_net cloud user net_link "$1"
	vm_start "${guest_args[@]}" --net "tap=$tap"
	if vm_says "the link is up" '^guest: carrier 1'; then
		holds "net-down" ctl net-down
		vm_says "the guest sees it" '^guest: carrier 0'
		has "and so does status" '"link": *"down"' <(ctl status)
		holds "net-up" ctl net-up net=0
	fi
	vm_end
	end_net
	has "and the way back" '^guest: up again'
	is "ping after that, and after each load of the driver" "$(grep -ac '^guest: ping 3' "$log")" 3
	net_is_clean
}

# A reset and a kexec, with the card in use.
case_net_reboot() { # subnet
	tap "$1" || return 0
	args_of_net cloud user net_reboot "$1"
	guest_args+=(--initrd "$work/cloud/initrd.net-kexec")
	vm "${guest_args[@]}" --net "tap=$tap"
	end_net
	is "ping in each boot" "$(grep -ao '^guest: boot .* ping .*' "$log" | tr -d '\r' | tr '\n' ,)" \
		"guest: boot first ping 3,guest: boot reset ping 3,guest: boot kexec ping 3,"
	is "ends with status 0" "$status" 0
	lacks "vmm has nothing to complain of" '^vmm: '
}

# Two guests on one bridge, one of which serves the other.
case_net_bridge() { # subnet
	local other
	tap "$1" || return 0
	for other in llc/llc 802/stp bridge/bridge; do
		module "net/$other"
	done
	if ! ip link add name "vmmbr$1" type bridge 2>/dev/null; then
		end_net
		skip "no bridge to be had"
		return 0
	fi
	ip tuntap add dev "vmm$1b" mode tap
	ip link set "vmm$1b" mtu 9000 master "vmmbr$1" up
	ip addr flush dev "$tap" # it is the other guest's
	ip link set "$tap" master "vmmbr$1"
	ip link set "vmmbr$1" up
	args_of_net cloud user net_server "$1"
	"$vmm" "${guest_args[@]}" --control "$scratch/ctl2" --stats "$scratch/other.json" --net "tap=vmm$1b" \
		>"$scratch/other" 2>&1 </dev/null &
	other=$!
	args_of_net cloud user net_client "$1"
	vm "${guest_args[@]}" --net "tap=$tap"
	kill -KILL "$other" && wait "$other" 2>/dev/null
	ip link del "vmm$1b"
	ip link del "vmmbr$1"
	end_net
	has "one guest reaches the other" '^guest: ping 3'
	has "TCP between them" '^guest: up [1-9].* down [1-9]'
	net_is_clean
}

# passt wants an interface with a default route; the emulated host has none, so it is given one.
case_net_user() { # subnet
	local got="" n sum passt names=""
	command -v passt >/dev/null || { skip "passt is not installed"; return 0; }
	if [ -n "${VMM_EMULATED_HOST:-}" ]; then
		tap "$1" || return 0
		ip route add default via "10.77.$1.254" 2>/dev/null
		# A name server that nobody else has: passt tells the guest of the one in this file.
		"$here/dns" &
		names=$!
		echo "nameserver 127.0.0.1" >"$scratch/resolv.conf"
		mount --bind "$scratch/resolv.conf" /etc/resolv.conf
	elif [ -z "$(ip route show default)" ]; then
		skip "this host has no default route"
		return 0
	fi
	pages
	busybox httpd -f -p "127.0.0.1:18${1}0" -h "$scratch/www" &
	servers=$!
	iperf3 -s -B 127.0.0.1 -p "18${1}1" >/dev/null 2>&1 &
	servers+=" $! ${names:-}"
	args_of_net cloud user net_user "$1"
	mkfifo "$scratch/in"
	input=$scratch/in
	exec 7<>"$scratch/in"
	vm_start "${guest_args[@]}" --net "user,hostfwd=tcp:18$1-22"
	if vm_says "the guest listens" '^guest: listening'; then
		for n in 1 2 3 4 5 6 7 8 9; do
			got=$(timeout 5 busybox nc 127.0.0.1 "18$1" </dev/null 2>/dev/null)
			[ -z "$got" ] || break
			sleep 0.5
		done
	fi
	passt=$(pgrep -P "$vm_pid" passt)
	holds "passt runs" kill -KILL "$passt"
	vm_says "the guest has waited for its end" '^guest: carrier [01]'
	has "and seen it" '^guest: carrier 0'
	has "and so does status" '"link": *"down"' <(ctl status)
	echo >&7
	vm_end
	exec 7>&-
	tap=${tap:-none} end_net
	if [ -n "$names" ]; then
		umount /etc/resolv.conf
		has "a name is looked up" '^guest: name 192\.0\.2\.53'
	fi
	has "an address by DHCP" '^guest: bound [0-9.]+ router [0-9.]+'
	has "a file is fetched whole from the host" "^guest: file $sum"
	has "UDP reaches the host" '^guest: udp good'
	is "a forwarded port reaches the guest" "$got" "hello from the guest"
	is "ends with status 0" "$status" 0
	is "one line tells of it, and none of passt's" "$(tr -d '\r' <"$log" | grep -avE '^(vmm-guest: .*|guest: .*|.* reboot: Power down|)$')" \
		"vmm: --net user: passt was ended by signal 9; the guest's link is down"
}
