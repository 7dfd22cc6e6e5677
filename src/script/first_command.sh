# shellcheck shell=sh
# The first command on a container machine: tells who the login is, sets the watchdog, and reads the environment of
# process 1. POSIX sh; run as
#
#   sh -c TEXT gad WATCHDOG HALF HALF SECONDS LIMIT
#
# TEXT is this file. WATCHDOG is the text of watchdog.sh, which is started so that it ends the machine in SECONDS. The
# halves make a nonce, as in remote.sh. Frames on stdout are lines "RS nonce word argument": where there is no /proc
# "lacks /proc" and no more, else in this order:
#
#   uid NUMBER        the login's
#   process NAME      what process 1 runs
#   watchdog WORD     set, running (it was before), or why the machine cannot be ended from inside:
#                     host (not alone among its processes), shared (with another container), denied (process 1 is
#                     another user's), detached (not possible: no setsid), stubborn (process 1 waits for nothing that
#                     could be ended), failed
#   environ           up to LIMIT bytes of process 1's environment follow
#   end CODE          0 where they could be read, foreign where process 1 is another container's
#
# Each variable and function of this file has an underscore in its name, and no upper-case letter: see shorten.rs.
frame_nonce=$2$3

write_frame() {
	printf '\036%s %s\n' "$frame_nonce" "$1"
}

# Reads the /proc stat file $1 into stat_pid, stat_parent and stat_start.
read_stat() {
	stat_line=
	{ read -r stat_line <"$1"; } 2>/dev/null || return 1
	stat_pid=${stat_line%% *} stat_line=${stat_line##*) }
	# shellcheck disable=SC2086
	set -- $stat_line
	stat_parent=$2
	shift 19
	stat_start=$1
}

# Fails, with the reason on stdout, where nothing here can end the machine.
can_end_machine() {
	# The number of the host's own process namespace is fixed. A /proc of another namespace shows other pids.
	case $(readlink /proc/self/ns/pid) in
	'' | *4026531836*) echo host && return 1 ;;
	esac
	[ "$own_pid" = $$ ] || { echo host && return 1; }
	[ -z "$is_foreign" ] || { echo shared && return 1; }
	kill -0 1 2>/dev/null || { echo denied && return 1; }
	command -v setsid >/dev/null 2>&1 || { echo detached && return 1; }
	# Process 1 gets no signal that it does not catch. One that waits for its children ends with them.
	case $catches_term$first_program in
	0sleep | 0tail | 0cat | 0pause) echo stubborn && return 1 ;;
	esac
}

if [ ! -r /proc/self/stat ]; then
	write_frame "lacks /proc"
	exit 1
fi

login_uid='' first_program='' catches_term=0 is_foreign=''
while read -r status_name status_value _; do
	[ "$status_name" != Uid: ] || login_uid=$status_value
done </proc/self/status
write_frame "uid $login_uid"

{ read -r first_program </proc/1/comm; } 2>/dev/null
write_frame "process $first_program"
# Whether process 1 catches SIGTERM: bit 14.
while read -r status_name status_value _; do
	[ "$status_name" != SigCgt: ] || catches_term=$(((0x0${status_value#????????????} >> 14) & 1))
done </proc/1/status
# Containers that share their processes have roots of their own.
# shellcheck disable=SC3013
[ ! -d /proc/1/root/. ] || [ /proc/1/root -ef / ] || is_foreign=1

read -r own_pid _ </proc/self/stat
if ! watchdog_word=$(can_end_machine); then
	:
elif grep -q '[g]ad-watchdog' /proc/[0-9]*/cmdline 2>/dev/null; then
	watchdog_word=running
else
	# All that let this login in, up to process 1: the SSH server, and what started it.
	server_processes='' next_pid=$$
	while read_stat "/proc/$next_pid/stat" && [ "$stat_parent" -gt 1 ]; do
		next_pid=$stat_parent
		read_stat "/proc/$next_pid/stat" && server_processes="$server_processes $stat_pid.$stat_start"
	done
	read -r up_seconds _ </proc/uptime
	# Twice: the second is a session leader, so it forks, and what is left is not a child of anything here. No "&": dash and
	# busybox would leave SIGINT ignored for ever. The watchdog closes this stdout once it is set.
	# shellcheck disable=SC2086
	watchdog_word=$(printf %s "$1" | setsid setsid sh -s "gad""-watchdog" $((${up_seconds%.*} + $4)) $server_processes 2>/dev/null)
fi
write_frame "watchdog ${watchdog_word:-failed}"

write_frame environ
read_code=foreign
if [ -z "$is_foreign" ]; then
	head -c "$5" /proc/1/environ 2>/dev/null
	read_code=$?
fi
write_frame "end $read_code"
