#!/bin/sh
# SPDX-License-Identifier: MIT
# acpi_iasl.sh ACPI_DUMP: has ACPICA read the tables of the sample machine.
#
# - iasl disassembles each table and compiles the result again without an error
#   or a warning, and the bytes are ours again (but for the header's checksum
#   and creator, which the compiler signs). The RSDP, which iasl can't
#   disassemble, is compiled from a description and compared.
# - acpiexec loads the DSDT, evaluates objects and methods, and finds no error.
set -u

fail()
{
	echo "acpi_iasl: $*" >&2
	exit 1
}

[ $# -eq 1 ] || fail "usage: $0 ACPI_DUMP"
for tool in iasl acpiexec; do
	if ! command -v "$tool" >/dev/null; then
		echo "skipped: $tool is not installed (Debian package acpica-tools)"
		exit 77
	fi
done

dump=$(realpath "$1") || exit 1
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1

# compile FILE OUTPUT: warnings count as errors, optimisations would change the bytes.
compile()
{
	timeout 60 iasl -w3 -we -on "$1" >log 2>&1 || { cat log; fail "$1: iasl rejects it"; }
	grep -q ' 0 Errors, 0 Warnings, 0 Remarks' log || { cat log; fail "$1: iasl complains"; }
	[ -s "$2" ] || fail "$1: iasl wrote nothing"
}

# hex FILE OFFSET LENGTH
hex()
{
	od -An -v -tx1 -j "$2" -N "$3" "$1" | tr -d ' \n'
}

# same TABLE: equal but for bytes 9 (checksum) and 28..35 (creator).
same()
{
	[ "$(stat -c %s "$1.dat")" = "$(stat -c %s "$1.aml")" ] || fail "$1: length changed"
	for range in '0 9' '10 18' '36 16777216'; do
		# shellcheck disable=SC2086 # two arguments
		[ "$(hex "$1.dat" $range)" = "$(hex "$1.aml" $range)" ] ||
			fail "$1: bytes $range differ after recompilation"
	done
}

# The XSDT's address is the one thing in it that depends on the other tables.
check_rsdp()
{
	address=$(hex RSDP.dat 24 8 | sed 's/\(..\)\(..\)\(..\)\(..\)\(..\)\(..\)\(..\)\(..\)/\8\7\6\5\4\3\2\1/')
	cat >RSDP.asl <<-END
		[0008] Signature : "RSD PTR "
		[0001] Checksum : 00
		[0006] Oem ID : "VMM   "
		[0001] Revision : 02
		[0004] RSDT Address : 00000000
		[0004] Length : 00000024
		[0008] XSDT Address : $address
		[0001] Extended Checksum : 00
		[0003] Reserved : 000000
	END
	compile RSDP.asl RSDP.aml
	cmp RSDP.dat RSDP.aml || fail "RSDP: differs from iasl's"
}

check_tables()
{
	rm -f ./*
	"$dump" . "$1" || fail "acpi_dump failed for $1 CPUs"
	for table in XSDT FACP FACS APIC MCFG WAET SPCR DSDT; do
		[ -s $table.dat ] || fail "$table: not reachable from the RSDP"
		timeout 60 iasl -d $table.dat >log 2>&1 || { cat log; fail "$table: can't be disassembled"; }
		! grep -iE 'error|warning|invalid|incorrect' log || fail "$table: iasl -d complains"
		! grep -iE 'incorrect|invalid|should be' $table.dsl || fail "$table: a field is wrong"
		compile $table.dsl $table.aml
		# The FACS has no header, and so nothing that may differ.
		if [ $table = FACS ]; then
			cmp FACS.dat FACS.aml || fail "FACS: differs after recompilation"
		else
			same $table
		fi
	done
	check_rsdp
}

# run COMMANDS: output to the file log.
run()
{
	timeout 60 acpiexec -b "$1" DSDT.dat >log 2>&1 || { cat log; fail "acpiexec: $1"; }
	! grep -E 'ACPI (BIOS )?(Error|Warning|Exception)|Error:|failed|AE_' log || fail "acpiexec: $1"
}

# expect PATTERN: in the output of the last run.
expect()
{
	grep -qE "$1" log || { cat log; fail "acpiexec: no '$1'"; }
}

check_execution()
{
	# ToUUID("33DB4D5B-1FF7-401C-9657-7441C03DD766"), then one with the last byte changed
	uuid='5B 4D DB 33 F7 1F 1C 40 96 57 74 41 C0 3D D7'
	ask='01 00 00 00 1F 00 00 00 1D 00 00 00'

	run 'evaluate \_S5'
	expect 'Contains 4 Elements'
	run 'evaluate \_SB.PCI0._CRS'
	expect 'Buffer. Length 82 ='
	run 'evaluate \_SB.PCI0._PRT'
	expect 'Contains 128 Elements'
	run "evaluate \\_SB.PCI0._OSC ($uuid 66) 1 3 ($ask)"
	expect '01 00 00 00 1F 00 00 00 1D 00 00 00 *//'
	run "evaluate \\_SB.PCI0._OSC ($uuid 67) 1 3 ($ask)"
	expect '05 00 00 00 1F 00 00 00 1D 00 00 00 *//'
	# The register is simulated as memory: TEST writes the larger argument.
	run 'evaluate \_SB.PCI0.PEVT.TEST 5 3;evaluate \_SB.PCI0.PEVT.RDPT'
	expect 'Integer. = 0000000000000005'
	run 'evaluate \_SB.PCI0.PEVT._DIS;evaluate \_SB.MODU.CHLD._DIS;evaluate \_SB.MODU.CHLD._STA'
	expect 'Integer. = 000000000000000D'
	# VMBus: the id Linux matches (which ACPICA hands it in capitals), an empty _CRS, and the states of power.
	run 'evaluate \_SB.VMOD.VMBS._CID'
	expect 'String.*"VMBUS"'
	run 'evaluate \_SB.VMOD.VMBS._CRS'
	expect 'Buffer. Length 02 ='
	run 'evaluate \_SB.VMOD.VMBS._DIS;evaluate \_SB.VMOD.VMBS._STA'
	expect 'Integer. = 000000000000000D'
	run 'evaluate \_SB.VMOD.VMBS._DIS;evaluate \_SB.VMOD.VMBS._PS0;evaluate \_SB.VMOD.VMBS._PS3;evaluate \_SB.VMOD.VMBS._STA'
	expect 'Integer. = 000000000000000F'
	run 'evaluate \_SB.C12B._UID'
	expect 'Integer. = 000000000000012B'
}

check_tables 1
check_tables 2
check_tables 300
check_execution
echo "acpi_iasl: all tables compile without a warning and execute"
