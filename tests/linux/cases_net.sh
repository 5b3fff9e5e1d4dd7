# cases_net.sh - the cases of tests/linux about --net: a stock kernel's hv_netvsc, over a tap and over passt.
#
# Sourced by cases.sh. Each case has a tap and a subnet of its own; the guest is .2 in it. Where this user may not make a
# tap, or something is not installed, a case is skipped.
# shellcheck shell=bash disable=SC2034,SC2154

cases_net() {
	local kernel
	for kernel in cloud amd64; do
		echo "net-tap-$kernel 1 case_net_tap $kernel user 1 11"
		echo "net-offload-$kernel 1 case_net_offload $kernel user 12"
	done
	echo "net-tap-kvm 1 case_net_tap cloud kvm 1 13"
	echo "net-queues-2 2 case_net_queues 2 14"
	echo "net-queues-4 4 case_net_queues 4 15"
	echo "net-mtu 1 case_net_mtu 16"
	echo "net-link 1 case_net_link 17"
	echo "net-reload 1 case_net_reload 18"
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

# iperf3 for one guest after the other; a file for the guest to fetch and a place for one it sends.
serve() { # subnet
	iperf3 -s -B "10.77.$1.1" >/dev/null 2>&1 &
	servers=$!
	mkdir -p "$scratch/www"
	head -c 3000000 /dev/urandom >"$scratch/www/file"
	busybox httpd -f -p "10.77.$1.1:80" -h "$scratch/www" &
	servers+=" $!"
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

case_net_tap() { # kernel synic queues subnet
	tap "$4" || return 0
	serve "$4"
	args_of_net "$1" "$2" net_tap "$4"
	vm "${guest_args[@]}" --net "tap=$tap,mac=02:00:00:00:00:$4"
	end_net
	has "the card has the address it was given" "^guest: mac 02:00:00:00:00:$4"
	has "ping" '^guest: ping 3'
	has "TCP to the host" '^guest: up [1-9]'
	has "TCP from the host" '^guest: down [1-9]'
	has "a file arrives whole" "^guest: file $(md5sum <"$scratch/www/file" | cut -d ' ' -f 1)"
	has "segmentation is left to the host" '^guest: tcp-segmentation-offload: on'
	holds "which does it" [ "$(figure tx_segments)" -gt 0 ]
	holds "no more calls than frames" [ "$(figure tx_calls)" -le "$(figure tx_frames)" ]
	net_is_clean
}

# Each offload on and off: data are right, and the guest finds no wrong checksum.
case_net_offload() { # kernel synic subnet
	local sum
	tap "$3" || return 0
	serve "$3"
	sum=$(md5sum <"$scratch/www/file" | cut -d ' ' -f 1)
	args_of_net "$1" "$2" net_offload "$3"
	vm "${guest_args[@]}" --net "tap=$tap"
	end_net
	is "with each setting a file arrives whole" "$(grep -ac "^guest: .*: file $sum" "$log")" 5
	is "and TCP goes both ways" "$(grep -acE '^guest: .*: up [1-9].* down [1-9]' "$log")" 5
	has "no wrong checksum" '^guest: checksum errors 0[^0-9]*$'
	net_is_clean
}

case_net_queues() { # queues subnet
	tap "$2" multi_queue || return 0
	serve "$2"
	args_of_net amd64 user net_queues "$2"
	vm "${guest_args[@]}" --cpus "$1" --net "tap=$tap,queues=$1"
	end_net
	has "the guest uses $1 channels" "^guest: channels $1"
	has "8 flows to the host" '^guest: up [1-9]'
	has "8 flows from the host" '^guest: down [1-9]'
	net_is_clean
}

case_net_mtu() { # subnet
	tap "$1" || return 0
	serve "$1"
	args_of_net cloud user net_mtu "$1"
	vm "${guest_args[@]}" --net "tap=$tap"
	end_net
	has "MTU 9000" '^guest: mtu 9000'
	has "a ping of that size, unfragmented" '^guest: ping 3'
	has "TCP both ways" '^guest: up [1-9].* down [1-9]'
	net_is_clean
}

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
	has "ping" '^guest: ping 3'
	net_is_clean
}

case_net_reload() { # subnet
	tap "$1" || return 0
	args_of_net cloud user net_reload "$1"
	vm "${guest_args[@]}" --net "tap=$tap"
	end_net
	is "ping after each load" "$(grep -ac '^guest: ping 3' "$log")" 3
	net_is_clean
}

case_net_reboot() { # subnet
	tap "$1" || return 0
	args_of_net cloud user net_reboot "$1"
	vm "${guest_args[@]}" --net "tap=$tap"
	end_net
	is "ping in each boot" "$(grep -ac '^guest: ping 3' "$log")" 3
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
	local got="" n
	command -v passt >/dev/null || { skip "passt is not installed"; return 0; }
	if [ -n "${VMM_EMULATED_HOST:-}" ]; then
		tap "$1" || return 0
		ip route add default via "10.77.$1.254" 2>/dev/null
	elif [ -z "$(ip route show default)" ]; then
		skip "this host has no default route"
		return 0
	fi
	mkdir "$scratch/www"
	echo "a page" >"$scratch/www/page"
	busybox httpd -f -p "127.0.0.1:18${1}0" -h "$scratch/www" &
	servers=$!
	args_of_net cloud user net_user "$1"
	vm_start "${guest_args[@]}" --net "user,hostfwd=tcp:18$1-22"
	if vm_says "the guest listens" '^guest: listening'; then
		for n in 1 2 3 4 5 6 7 8 9; do
			got=$(timeout 5 busybox nc 127.0.0.1 "18$1" </dev/null 2>/dev/null)
			[ -z "$got" ] || break
			sleep 0.5
		done
	fi
	vm_end
	tap=${tap:-none} end_net
	has "an address by DHCP" '^guest: bound [0-9.]+ router [0-9.]+'
	has "the host is reached by TCP" '^guest: fetched a page'
	is "a forwarded port reaches the guest" "$got" "hello from the guest"
	is "ends with status 0" "$status" 0
	is "passt is gone" "$(pgrep -x -P "$vm_pid" passt)" ""
	lacks "vmm has nothing to complain of" '^vmm: '
}
