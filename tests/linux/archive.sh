# archive.sh - another part of Debian's archive than what this system's apt is set up for, from the same mirror: for scripts
# that use cached.sh. apt's state, cache and lists are below $tmp; its other settings, such as a proxy, are the system's, and
# signatures are verified by Debian's keyring.
# shellcheck shell=bash disable=SC2034,SC2154

RELEASE=bookworm

# The options that keep apt to itself; so does what it is told to download be found.
own_apt=(-o Dir::State::Lists="$tmp/lists" -o Dir::State::status="$tmp/status" -o Dir::Cache="$tmp/cache"
	-o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null -o APT::Default-Release=
	-o Acquire::Languages=none -o Acquire::Retries=1 -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20
	-o APT::Sandbox::User="$(id -un)")

# Where apt gets Debian's main archive from, in whichever form that is written, without updates and other additions.
main_archive() { # option...
	# shellcheck disable=SC2016
	apt-get "$@" indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' \
		"Codename: $RELEASE" 'Component: main' | head -n 1
}

# Has the lists of one index of the main archive, Packages or Sources, so that the caller may go on with apt-get
# "${own_apt[@]}".
use_archive() { # deb|deb-src release
	local uri keyring=/usr/share/keyrings/debian-archive-keyring.gpg options=lang=none
	mkdir -p "$tmp/lists" "$tmp/cache"
	: >"$tmp/status"
	: >"$tmp/log"
	uri=$(main_archive)
	if [ -z "$uri" ]; then # a system whose lists were cleaned away; that is its business
		apt-get -q "${own_apt[@]}" update >"$tmp/log" 2>&1 || die "apt-get update: $(apt_error)"
		uri=$(main_archive "${own_apt[@]}")
	fi
	[ -n "$uri" ] || die "apt does not know the archive of Debian's release $RELEASE$(sed -n '/^[EW]:/{s/^/; /p;q}' "$tmp/log")"
	[ ! -e "$keyring" ] || options+=" signed-by=$keyring"
	case $1 in
	deb) options+=" arch=amd64 target=Packages" ;;
	deb-src) options+=" target=Sources" ;;
	esac
	echo "$1 [$options] $uri $2 main" >"$tmp/sources.list"
	own_apt+=(-o Dir::Etc::SourceList="$tmp/sources.list" -o Dir::Etc::SourceParts=/dev/null)
	apt-get -q "${own_apt[@]}" --error-on=any update >"$tmp/log" 2>&1 || die "apt-get update: $(apt_error)"
}
