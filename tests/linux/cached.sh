# cached.sh - for the scripts that make what takes long and is kept: a directory NAME of the cache, with a file "key" that
# tells what it was made of. A script calls need, begin, and, with all in $tmp/result, keep.
# shellcheck shell=bash

here=$(cd "$(dirname "$0")" && pwd)
cache=${VMM_CACHE:-$(cd "$here/../.." && pwd)/build/images}

say() { printf '%s: %s\n' "${0##*/}" "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }
apt_error() { grep -m 1 '^[EW]:' "$tmp/log" || tail -n 1 "$tmp/log"; }

need() { # tool...
	local tool
	for tool in flock "$@"; do
		command -v "$tool" >/dev/null || die "$tool: not found; tools/install-deps run check installs it"
	done
}

# Ends the script if NAME is there, made of the same as standard input. Otherwise nobody else makes it meanwhile, and $tmp is a
# directory that goes with the script: in the cache, since /tmp may be a small tmpfs.
begin() { # NAME <what it is made of
	name=$1
	key=$(sha256sum | cut -c 1-16)
	mkdir -p "$cache"
	exec 9>"$cache/.lock"
	flock 9
	if [ "$(cat "$cache/$name/key" 2>/dev/null)" = "$key" ]; then
		say "is there"
		exit 0
	fi
	rm -rf --one-file-system "$cache/.$name".* # of one that was killed: nobody else has the lock
	tmp=$(mktemp -d "$cache/.$name.XXXXXX")
	trap 'rm -rf --one-file-system "$tmp"' EXIT
	trap 'exit 1' HUP INT TERM
	began=$SECONDS
	mkdir "$tmp/result"
}

keep() { # what there is to say of it
	echo "$key" >"$tmp/result/key"
	rm -rf "${cache:?}/$name"
	mv "$tmp/result" "$cache/$name"
	say "$*, in $((SECONDS - began)) s"
}
