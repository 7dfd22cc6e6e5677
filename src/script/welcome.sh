# shellcheck shell=sh
# The first command on a container machine. POSIX sh; run as
#
#   sh -c TEXT gad WATCHDOG HALF HALF SECONDS LIMIT
#
# TEXT is this file, WATCHDOG the text of watchdog.sh, which is started so that it ends the machine in SECONDS; the
# halves make a nonce, as in remote.sh. Frames on stdout, lines "RS nonce word argument": where there is no /proc
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
n=$2$3

frame() {
	printf '\036%s %s\n' "$n" "$1"
}

# Reads /proc stat file $1: pid f, parent r, birth t.
proc() {
	t=
	{ read -r t <"$1"; } 2>/dev/null || return 1
	f=${t%% *} t=${t##*) }
	# shellcheck disable=SC2086
	set -- $t
	r=$2
	shift 19
	t=$1
}

# Fails with the reason on stdout where nothing here can end the machine.
able() {
	# The number of the host's own process namespace is fixed. A /proc of another namespace shows other pids.
	case $(readlink /proc/self/ns/pid) in
	'' | *4026531836*) echo host && return 1 ;;
	esac
	[ "$p" = $$ ] || { echo host && return 1; }
	[ -z "$o" ] || { echo shared && return 1; }
	kill -0 1 2>/dev/null || { echo denied && return 1; }
	command -v setsid >/dev/null 2>&1 || { echo detached && return 1; }
	# Process 1 gets no signal that it does not catch. One that waits for its children ends with them.
	case $c$x in
	0sleep | 0tail | 0cat | 0pause) echo stubborn && return 1 ;;
	esac
}

if [ ! -r /proc/self/stat ]; then
	frame "lacks /proc"
	exit 1
fi

u='' x='' c=0 o=''
while read -r w i _; do
	[ "$w" != Uid: ] || u=$i
done </proc/self/status
frame "uid $u"

{ read -r x </proc/1/comm; } 2>/dev/null
frame "process $x"
# Whether process 1 catches SIGTERM: bit 14.
while read -r w i _; do
	[ "$w" != SigCgt: ] || c=$(((0x0${i#????????????} >> 14) & 1))
done </proc/1/status
# Containers that share their processes have roots of their own.
# shellcheck disable=SC3013
[ ! -d /proc/1/root/. ] || [ /proc/1/root -ef / ] || o=1

read -r p _ </proc/self/stat
if ! e=$(able); then
	:
elif grep -q '[g]ad-watchdog' /proc/[0-9]*/cmdline 2>/dev/null; then
	e=running
else
	# Whoever let this login in, up to process 1: the SSH server, and what started it.
	a='' i=$$
	while proc "/proc/$i/stat" && [ "$r" -gt 1 ]; do
		i=$r
		proc "/proc/$i/stat" && a="$a $f.$t"
	done
	read -r i _ </proc/uptime
	# Twice: the second is a session leader, so it forks, and what is left belongs to nobody here. No "&": dash and
	# busybox would leave SIGINT ignored for ever. It closes this stdout when it stands.
	# shellcheck disable=SC2086
	e=$(printf %s "$1" | setsid setsid sh -s "gad""-watchdog" $((${i%.*} + $4)) $a 2>/dev/null)
fi
frame "watchdog ${e:-failed}"

frame environ
c=foreign
if [ -z "$o" ]; then
	head -c "$5" /proc/1/environ 2>/dev/null
	c=$?
fi
frame "end $c"
