# lib.sh - what the cases of tests/linux are written with. Sourced by tests/linux/driver, which sets:
#   work      prepared images, results, consoles (kept between hosts)
#   scratch   a fast directory for this case alone
#   case_name, vmm, LIMIT (seconds a guest may take)
# shellcheck shell=bash disable=SC2034,SC2119,SC2120,SC2154

boots=0 told=

# Result lines gather in $scratch/tap; tests/linux/run puts the numbers in.
ok() { printf 'ok - linux: %s: %s\n' "$case_name" "$1" >>"$scratch/tap"; }
not_ok() { # what line...
	printf 'not ok - linux: %s: %s\n' "$case_name" "$1" >>"$scratch/tap"
	shift
	[ $# -eq 0 ] || printf '%s\n' "$@" | sed 's/^/# /' >>"$scratch/tap"
	# One tail a guest is enough.
	if [ "$told" != "$boots" ] && [ -e "$log" ]; then
		told=$boots
		printf '# the end of the console, status %s:\n' "${status:-none yet}" >>"$scratch/tap"
		tail -n 20 "$log" | tr -d '\r' | tr -c '\t\n -~' '?' | cut -c 1-160 | sed 's/^/# | /' >>"$scratch/tap"
	fi
}
is() { # what got wanted
	if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "got    '${2:0:300}'" "wanted '${3:0:300}'"; fi
}
holds() { # what command...
	local what=$1
	shift
	if "$@"; then ok "$what"; else not_ok "$what" "false: ${*:0:300}"; fi
}
has() { # what regex [file]
	if grep -aqE -- "$2" "${3:-$log}"; then ok "$1"; else not_ok "$1" "nothing matches '$2'"; fi
}
lacks() { # what regex [file]
	local found
	found=$(grep -aE -m 5 -- "$2" "${3:-$log}" | cut -c 1-160)
	if [ -z "$found" ]; then ok "$1"; else not_ok "$1" "unwanted:" "$found"; fi
}

# A guest: start it, maybe talk to it, then vm_end; or vm does both. Its console and vmm's own lines are in $log.
vm_start() { # vmm's arguments
	boots=$((boots + 1))
	log=$scratch/console.$boots
	status=
	: >"$log"
	"$vmm" "$@" <"${input:-/dev/null}" >"$log" 2>&1 &
	vm_pid=$!
}
vm_end() { # [seconds]
	timeout "${1:-$LIMIT}" tail -s 0.1 --pid="$vm_pid" -f /dev/null || {
		echo "tests/linux: still running after ${1:-$LIMIT} s" >>"$log"
		kill -KILL "$vm_pid"
	}
	status=0
	wait "$vm_pid" 2>/dev/null || status=$?
}
vm() { vm_start "$@"; vm_end; }
vm_says() { # what regex [times]: waits for it
	local end=$((SECONDS + LIMIT))
	until [ "$(grep -acE -- "$2" "$log")" -ge "${3:-1}" ]; do
		if ! kill -0 "$vm_pid" 2>/dev/null || [ $SECONDS -ge $end ]; then
			not_ok "$1" "nothing matches '$2'"
			return 1
		fi
		sleep 0.2 # to look costs an emulated host what the guest has to wait for
	done
	ok "$1"
}

# Arguments for a guest that runs case_$2 of tests/linux/guest on the kernel $1.
args_of() { # kernel guest-case more-of-the-command-line
	guest_args=(--kernel "$work/$1/vmlinuz" --initrd "$work/$1/initrd"
		--cmdline "quiet cryptomgr.notests vmm.test=run vmm.case=$2${3:+ $3}")
}

section() { # name: that part of the last guest's output
	tr -d '\r' <"$log" | awk -v name="== $1" '/^== / { on = $0 == name; next } on'
}
