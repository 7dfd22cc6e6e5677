# shellcheck shell=sh disable=SC1007,SC2030,SC2031
# The far side of a script that outlives its connection. POSIX sh; run as
#
#   sh -c TEXT gad TEXT VERB KEY HALF HALF ARG
#
# TEXT is this file (it hands itself on to the supervisor), KEY names the job, the two halves make the
# nonce of one `run` (two, so that a shell that echoes its commands never prints what a frame begins with).
#
#   start LENGTH [PRELUDE]   receives LENGTH bytes of script on stdin, and PRELUDE bytes for a shell to read that is to
#                            become the script's; starts them once, follows from 0
#   follow OFFSET            follows from OFFSET on
#   sup FILE PID             (internal) the supervisor of FILE, and of its prelude FILE.e, which PID is to follow
#
# Frames are lines "RS nonce word argument": open, fail, lacks, crowded, gone, full, forgotten on stdout; next and end
# inside the spool; left on stderr. Lines on stdin while following: ack OFFSET, cancel, kill,
# done (forget the script, whose end is known), drop (end it and forget it).
#
# Files in the nonce's directory: p (the pipe), ok (the frame that follows the spool where it holds no end; emptied when
# nothing is wanted any more), sup (pid and birth of the supervisor; whoever makes it has started the script), o.N (spool
# segment that begins at byte N), n.N (its segment is complete; holds where the next begins), ack, dd, tail and ctl (pids
# of who reads the pipe, who writes to the connection, who holds the connection), r (what was counted last), nosid (no
# setsid here; holds the pids that are not the script's), mem (how often the kernel had killed for want of memory before
# the script).
#
# No process may be to be had: a fork that fails ends dash and busybox with 2, bash (after 15 s) with 254, whatever
# stands behind it ("||" too), but not a dash or busybox whose fork is in a "command eval". So each shell that starts
# something has a trap that tells, and no builtin that ends its shell where a file cannot be written (":") writes one.
T=$1 k=$3 n=$4$5 N=$5 O=$6

# Runs its arguments if a fork that failed is what ends this shell.
crowd() {
	case $? in 2 | 254) "$@" ;; esac
}

# Reads /proc stat file $1: pid f, state v, parent r, session e, birth t. Fails where there is no live process.
proc() {
	t=
	read -r t <"$1" || return 1
	f=${t%% *} t=${t##*) }
	# shellcheck disable=SC2086
	set -- $t
	# A pid that could not be read makes it /proc/stat, and dash does not survive a shift too far.
	[ $# -gt 19 ] || return 1
	v=$1 r=$2 e=$4
	shift 19
	t=$1
	[ "$v" != Z ] && [ "$v" != X ]
}

# Succeeds while the process noted in file $1 lives; a number that was given away again does not count.
alive() {
	p= q=
	read -r p q <"$1"
	[ -n "$p" ] && proc "/proc/$p/stat" && [ "$t" = "$q" ]
}

frame() {
	printf '\036%s %s\n' "$n" "$1"
}

# Sets m to how often the kernel has killed for want of memory in this container since there were $1 such kills.
kills() {
	m=0
	for i in memory.events memory/memory.oom_control; do
		while read -r w u; do
			[ "$w" != oom_kill ] || m=$((u - ${1:-0}))
		done <"/sys/fs/cgroup/$i"
	done
}

nap() {
	command eval 'sleep "$1" || sleep 1'
}

# Sets w to the seconds since the machine's start.
now() {
	read -r w _ </proc/uptime
	w=${w%.*}
}

# Runs $2... aside, with descriptor 4 as its stdin: a command behind "&" has lost its own. Where no process is to be had
# it tries for $1 seconds. A bare cat is known for ours by its environment.
aside() {
	now
	x=$((w + $1))
	shift
	# shellcheck disable=SC2016
	until command eval 'n=$n "$@" <&4 &'; do
		now
		[ "$w" -lt "$x" ] || exit 2
	done
}

# Fails unless $1 processes can run at once.
room() {
	[ "$1" -eq 0 ] || (
		room $(($1 - 1))
		exit $?
	)
}

# Sets l to the live processes of the script's session; its leader g is the supervisor's child that leads one. Where
# setsid was missing, the leader's descendants have to do.
session() {
	x=
	read -r x <"$d/nosid"
	if [ -z "$g" ]; then
		alive "$d/sup" || p=none
		w=$p
		for i in /proc/[0-9]*/stat; do
			proc "$i" || continue
			[ "$r" = "$w" ] || continue
			case $x in
			'') [ "$e" != "$f" ] || g=$f ;;
			*" $f "*) ;;
			*) g=$f ;;
			esac
		done
		# The supervisor itself was killed: the leader still has the script's path in its command line.
		if [ -z "$g" ]; then
			# shellcheck disable=SC2013
			for i in $(grep -l "${d##*/}[.]" /proc/[0-9]*/cmdline); do
				proc "${i%cmdline}stat" && [ "$e" = "$f" ] && g=$f
			done
		fi
	fi
	l= u=- m=" $g "
	while [ "$l" != "$u" ]; do
		u=$l l=
		for i in /proc/[0-9]*/stat; do
			proc "$i" || continue
			if [ -z "$x" ]; then
				[ "$e" = "$g" ] || continue
			else
				case $m in
				*" $f "*) ;;
				*" $r "*) m="$m$f " ;;
				*) continue ;;
				esac
			fi
			l="$l $f"
		done
		[ -n "$x" ] || break
	done
}

# Asks the script's session to end.
ask() {
	g=
	session
	# shellcheck disable=SC2086
	kill $l
}

# Ends the script's session: $1 seconds, KILL; names what is left after five seconds more. By the clock: on a busy
# machine a look at all processes takes long.
stop() {
	g=
	session
	[ -n "$g" ] || return 0
	now
	o=$((w + $1))
	while [ -n "$l" ]; do
		now
		[ ! -e "$d/kill" ] || [ "$w" -ge "$o" ] || o=$w
		[ "$w" -lt $((o + 5)) ] || break
		# shellcheck disable=SC2086
		[ "$w" -lt "$o" ] || kill -9 $l
		nap .1
		session
	done
	for i in $l; do
		read -r t <"/proc/$i/comm" && frame "left $i $t" >&3
	done
}

# Removes all traces of the script in $d; a copier that still reads goes on into the void.
forget() {
	true >"$d/ok"
	alive "$d/sup" && read -r p <"$d/dd" && kill "$p"
	rm -rf "$d" "$d".* || rm -rf "$d" "$d".*
	rmdir "${d%/*}"
}

# The spool cannot be written (frame $2): flag it, into bytes that are there (that needs no room), and end the script,
# whose output would be lost. A dd that was killed (code $1) is no full disk; its death counts as the supervisor's.
broken() {
	[ -s "$d/ok" ] || exec cat <&4 >/dev/null
	[ "$1" -gt 128 ] || echo "$2" 1<>"$d/ok"
	stop 0
	[ "$1" -le 128 ] || { read -r p _ <"$d/sup" && kill -9 "$p"; }
}

# Reads the pipe (descriptor 4) into segments. Each dd takes what is there (at most 64 KiB a read) and writes it at once;
# its closing report tells whether there may be more. At 64 MiB not yet acknowledged it waits, as a plain connection
# would.
copy() {
	trap 'crowd broken 1 crowded' EXIT
	LC_ALL=C
	export LC_ALL
	o=0 a=0
	while :; do
		while [ $((o - ${a:-0})) -ge 67108864 ] && [ -s "$d/ok" ]; do
			nap .04
			read -r a <"$d/ack"
		done
		c=1 r=
		if { aside 10 dd bs=65536 count=256; } >>"$d/o.$o" 2>"$d/r"; then
			echo "$!" >"$d/dd"
			wait "$!"
			c=$?
			# GNU dd warns of short reads first.
			while read -r w u i _; do
				[ "$u $i" != "records in" ] || r=$w
			done <"$d/r"
		fi
		# Done with: whatever still comes is a background child's; it must neither block nor die of it.
		[ -s "$d/ok" ] || exec cat <&4 >/dev/null
		if [ $c -ne 0 ] || [ -z "$r" ]; then break; fi
		[ $((${r%+*} + ${r#*+})) -eq 256 ] || return 0
		c=1 b=
		{ aside 10 wc -c; } 4<"$d/o.$o" >"$d/r" && wait "$!" && read -r b <"$d/r"
		[ "$b" ] || break
		b=$((o + b))
		# In this order: a follower that sees n.N finds all of the segment and the next one.
		{ true >"$d/o.$b" && frame "next $b" >>"$d/o.$o" && echo "$b" >"$d/n.$o"; } || break
		o=$b
	done
	broken "$c" "full $d"
}

# Runs a command that writes to the connection, noted where the next follower finds it; $1 is the segment that it waits
# for more of, or -1.
emit() {
	c=$1
	shift
	aside 99999999 "$@"
	echo "$! $c" >"$d/tail"
	# The receipt may have come before that line was written.
	b=
	read -r b <"$d/ack"
	[ "$c" -lt 0 ] || [ "${b:-0}" -le "$c" ] || kill $!
	wait $!
}

# Writes the spool from byte $1 on to stdout for as long as the supervisor lives. Fails where it was disturbed, so that
# nobody knows how much went out.
follow() {
	s=0
	for f in "$d"/o.*; do
		f=${f##*/o.}
		[ "$f" -gt "$1" ] || [ "$f" -le "$s" ] || s=$f
	done
	z=$(($1 - s + 1)) h=
	exec 4</dev/null
	read -r y _ <"$d/sup"
	while [ -e "$d/o.$s" ]; do
		if read -r u <"$d/n.$s"; then
			# Complete: the next one is known before the bytes go out, since their receipt may remove this one.
			if [ $z -eq 1 ]; then emit -1 cat "$d/o.$s"; else emit -1 tail -c +$z "$d/o.$s"; fi || return 1
			s=$u z=1
		elif [ -z "$h" ]; then
			# GNU tail sleeps until something is written, and ends with the supervisor.
			emit "$s" tail -c +$z -s .04 "--pid=$y" -f "$d/o.$s"
			c=$?
			if [ $c -eq 1 ]; then
				h=1
			else
				# The supervisor ended, or the receipt of its last byte ended tail: all of this segment is out.
				# The receipt may be here before the note of the next segment is.
				b=
				read -r b <"$d/ack"
				[ "${b:-0}" -le "$s" ] || until [ -s "$d/n.$s" ] || ! alive "$d/sup"; do nap .04; done
				read -r s <"$d/n.$s" || return $c
				z=1
			fi
		else
			# Any other tail looks once a second at best. The descriptor keeps the place between two cats.
			exec 4<"$d/o.$s"
			dd bs=1 skip=$((z - 1)) count=0 <&4
			while :; do
				u= m=
				read -r u <"$d/n.$s"
				alive "$d/sup" || m=1
				emit -1 cat || return 1
				[ -z "$u" ] || break
				[ -z "$m" ] || return 0
				nap .04
			done
			s=$u z=1
		fi
	done
}

# Ends whoever followed before: one follower at a time, or bytes go to a dead connection.
retire() {
	# What it runs comes last: until it is dead it may start something new.
	for i in ctl tail; do
		read -r p q <"$d/$i"
		[ $i = ctl ] || q=
		for f in $p $q; do
			grep -q "$N" "/proc/$f/cmdline" "/proc/$f/environ" && kill -9 "$f"
		done
	done
}

# Ends this connection's follower h, and what it runs, which may be another's by now.
quiet() {
	read -r p _ <"$d/tail"
	proc "/proc/$p/stat" && [ "$r" = "$h" ] || p=
	# shellcheck disable=SC2086
	kill -9 $h $p
}

# Holds one connection: starts the follower, then takes orders until stdin ends. Where the follower was disturbed the
# connection ends, and the driver comes again.
control() {
	exec 3>&2 2>/dev/null
	retire
	read -r i _ </proc/self/stat
	echo "$i" >"$d/ctl"
	h= j=
	# From here on the follower may be in the midst of a frame.
	trap quiet EXIT
	frame "open $O"
	{
		trap 'crowd kill -9 "$i"' EXIT
		follow "$O" || kill -9 "$i"
		m= b=gone
		{ read -r m <"$d/mem"; } && kills "$m"
		read -r b <"$d/ok"
		[ "$b" != gone ] || b="gone ${m:-0}"
		frame "$b"
	} </dev/null &
	h=$!
	echo "$i $h" >"$d/ctl"
	while read -r c a; do
		case $c in
		ack)
			b=
			read -r b <"$d/ack"
			echo "$a" >"$d/ack"
			# What the receipt before this one covered is surely behind the follower.
			for u in "$d"/n.*; do
				# shellcheck disable=SC2016
				read -r t <"$u" && [ "$t" -le "${b:-0}" ] && command eval 'rm -f "$u" "$d/o.${u##*/n.}"'
			done
			# After the receipt is noted: whoever begins to wait for more of its segment now looks there.
			read -r p q <"$d/tail" && [ "$q" -ge 0 ] && [ "$q" -lt "$a" ] && kill "$p"
			;;
		cancel)
			# Before all that needs a process: bash waits for one, as long as the follower lives. Without one there is no time.
			ask
			if command eval 'stop 10 &'; then j=$!; else stop 0; fi
			;;
		kill)
			# A stop under way sees this and insists.
			true >"$d/kill"
			[ -n "$j" ] || stop 0
			;;
		done | drop)
			quiet
			trap - EXIT
			[ "$c" != drop ] || stop 0
			# The stage is over when its processes are: the next one must not run beside them.
			[ -z "$j" ] || wait "$j"
			forget
			frame forgotten
			exit 0
			;;
		esac
	done
	exit 0
}

# Makes the directory $d, with all that must stand before anybody follows, and file $w, which holds room for the script and
# what it says first (n: that of sup). Other starts may be at it too.
take() {
	umask 077
	mkdir -p "$b" || return 1
	if [ ! -O "$b" ] || [ -h "$b" ]; then echo "not ours" && return 1; fi
	mkdir -p "$d" && cd "$d" && { [ -p p ] || mkfifo p || [ -p p ]; } || return 1
	for i in o.0 ack dd tail ctl r mem n "$w.e"; do true >>"$i" || return 1; done
	{ [ -s ok ] || echo gone >ok; } && head -c $((z + 131072)) /dev/zero >"$w" && rm -f n
}

# Takes that back. Where another start has begun the script meanwhile this one ends: the driver comes again, and follows.
undo() {
	rm -f "$w" "$w.e"
	[ ! -s "$d/sup" ] || exit 1
	rm -rf "$d"
	rmdir "$b" 2>/dev/null
}

# The script cannot be kept, for reason $1, or what e ends with.
fail() {
	undo
	frame "fail ${1:-$b: ${e##*: }}"
	exit 1
}

# Of many racing starts one wins.
claim() {
	proc "/proc/$$/stat"
	set -C
	if ! { echo "$f $t" >"$d/sup"; } 2>&1; then
		# Whoever has made it may be about to write it.
		nap .1
		[ ! -s "$d/sup" ] || echo won
		return 1
	fi
	set +C
}

# Runs script $1 by $2 (setsid) once $3 follows, its output through the pipe; the end marker takes the same way. The shell's own
# remarks ("Killed") are no output of the script's. Ends when all of it is in the spool. A prelude is read by a shell of
# its own in the script's session, so that nothing here (PATH, IFS, libraries) is what it says.
supervise() {
	trap 'crowd echo crowded 1<>"$d/ok"' EXIT
	for b in bash sh; do
		for s in /usr/local/bin /usr/bin /bin; do [ -x $s/$b ] && break 2; done
		s=/busybox
	done
	b=$s/$b
	# An image may have its shell anywhere on PATH.
	[ -x "$b" ] || b=$(command -v sh)
	exec </dev/null 2>/dev/null
	# Braces: on a bare function dash keeps the old descriptors, and somebody waits for this one to close.
	{ copy; } 4<"$d/p" >/dev/null &
	[ "$2" ] || echo " $! $h " >"$d/nosid"
	exec >"$d/p"
	# All of ours stand before it takes the last process, however long a busy machine takes; but whoever was to follow may be
	# gone.
	until [ -s "$d/tail" ] || ! proc "/proc/$3/stat"; do nap .002; done
	kills 0
	echo "$m" >"$d/mem"
	# In a child of its own: dash redirects itself for a plain command, and its remark would go the script's way.
	if [ -s "$1.e" ]; then
		# shellcheck disable=SC2016
		(exec $2 sh -c '. "$0" && exec "$@" 2>&1' "$1.e" "$b" "$1")
	else
		(exec $2 "$b" "$1" 2>&1)
	fi
	c=$?
	trap - EXIT
	kills "$m"
	frame "end $c $m"
	exec >/dev/null
	wait
}

[ -r /proc/self/stat ] || {
	frame 'lacks /proc'
	exit 1
}
d=
for b in /var/tmp /tmp "$HOME"; do
	[ -d "$b/.gad-$k/$n" ] && d=$b/.gad-$k/$n && break
done
[ "$2" = sup ] || trap 'crowd frame crowded' EXIT

case $2 in
start)
	z=$((O + ${7:-0})) s=$O O=0
	if [ ! -s "$d/sup" ]; then
		h=$d
		# A script whose driver was killed must not run on beside the next one; this one may have begun meanwhile.
		for d in /var/tmp/.gad-"$k"/*/sup /tmp/.gad-"$k"/*/sup "$HOME/.gad-$k"/*/sup; do
			d=${d%/sup} b=${d%/*}
			[ "${d##*/}" = "$n" ] || [ ! -s "$d/sup" ] || [ ! -O "$b" ] || [ -h "$b" ] || { ask; stop 2 && forget; } 2>/dev/null
		done
		# Eight for all that is done here at once, eight for the script: with fewer it would fail of it.
		room 16 || exit 2
		e=
		for c in /var/tmp /tmp "$HOME"; do
			b=$c/.gad-$k
			d=$b/$n w=$b/$n.$$
			# Where another start has begun.
			[ "${h:-$d}" = "$d" ] || continue
			a=$(
				trap 'crowd echo crowded' EXIT
				take 2>&1 || exit 1
			) && e= && break
			case $a in *crowded) exit 2 ;; esac
			undo
			e="$e, $c: ${a##*: }"
		done
		[ -z "$e" ] || fail "${e#, }"
		e=$(exec head -c "$z" 2>&1 >"$w") || fail
		# Cut off on its way: the driver sends it again, and may be at it.
		[ "$(wc -c <"$w")" -eq "$z" ] || {
			rm -f "$w" "$w.e"
			exit 1
		}
		# Taken apart here, since a head may read more from a pipe than it was told to; dd cuts the file off.
		[ -z "$7" ] || { e=$(exec tail -c "$7" "$w" 2>&1 >"$w.e") && e=$(exec dd if=/dev/null of="$w" bs=1 seek="$s" 2>&1); } || fail
		if command -v setsid >/dev/null 2>&1; then
			# Twice: the second is a session leader, so it forks. No "&": dash and busybox would leave SIGINT ignored
			# for ever. The supervisor closes this stdout when it has begun.
			e=$(setsid setsid sh -c "$T" gad "$T" sup "$k" "$4" "$5" "$w" $$) || exit 2
		elif e=$(claim); then
			exec 3<&0
			{ control; } <&3 3<&- &
			h=$!
			exec 3<&-
			supervise "$w" '' $h
			exit 0
		fi
		case $e in
		'') ;;
		*won) rm -f "$w" "$w.e" ;;
		*) fail ;;
		esac
	else
		# Sent again, though the first took effect: none of it is an order.
		head -c "$z" >/dev/null
	fi
	control
	;;
follow)
	[ -s "$d/sup" ] || {
		frame gone
		exit 1
	}
	control
	;;
sup)
	d=${6%.*}
	claim && supervise "$6" setsid "$7"
	;;
esac
