# shellcheck shell=sh disable=SC2030,SC2031
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
#   sup FILE                 (internal) the supervisor of FILE, and of its prelude FILE.e
#
# Frames are lines "RS nonce word argument": open, fail, gone, full, forgotten on stdout; next and end inside the spool;
# left on stderr. Lines on stdin while following: ack OFFSET, cancel, kill,
# done (forget the script, whose end is known), drop (end it and forget it).
#
# Files in the nonce's directory: p (the pipe), ok (emptied when nothing is wanted any more, renamed to full when the
# spool cannot be written), sup (pid and birth of the supervisor), o.N (spool segment that begins at byte N), n.N (its
# segment is complete; holds where the next begins), ack, dd, tail and ctl (pids of who reads the pipe, who writes to
# the connection, who holds the connection), nosid (no setsid here; holds the pids that are not the script's), mem (how
# often the kernel had killed for want of memory before the script).
k=$3 n=$4$5

# Reads /proc stat file $1: pid f, state v, parent r, session e, birth t. Fails where there is no live process.
proc() {
	t=
	{ read -r t <"$1"; } 2>/dev/null || return 1
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
	p='' q=''
	{ read -r p q <"$1"; } 2>/dev/null
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
	done 2>/dev/null
}

nap() {
	sleep "$1" 2>/dev/null || sleep 1
}

# Sets l to the live processes of the script's session; its leader g is the supervisor's child that leads one. Where
# setsid was missing, the leader's descendants have to do.
session() {
	x=
	{ read -r x <"$d/nosid"; } 2>/dev/null
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
			for i in $(grep -l "${d##*/}[.]" /proc/[0-9]*/cmdline 2>/dev/null); do
				proc "${i%cmdline}stat" && [ "$e" = "$f" ] && g=$f
			done
		fi
	fi
	l='' u=- m=" $g "
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

# Ends the script's session: TERM, $1 seconds, KILL; names what is left after five seconds more. By the clock: on a busy
# machine a look at all processes takes long.
stop() {
	g=
	session
	[ -n "$g" ] || return 0
	# shellcheck disable=SC2086
	[ "$1" -eq 0 ] || kill $l 2>/dev/null
	read -r o _ </proc/uptime
	o=$((${o%.*} + $1))
	while [ -n "$l" ]; do
		read -r c _ </proc/uptime
		c=${c%.*}
		[ ! -e "$d/kill" ] || [ "$c" -ge "$o" ] || o=$c
		[ "$c" -lt $((o + 5)) ] || break
		# shellcheck disable=SC2086
		[ "$c" -lt "$o" ] || kill -9 $l 2>/dev/null
		nap .1
		session
	done
	for i in $l; do
		{ read -r t <"/proc/$i/comm"; } 2>/dev/null && frame "left $i $t" >&2
	done
}

# Removes all traces of the script in $d; a copier that still reads goes on into the void.
forget() {
	# No ":" here and below: of a special builtin dash does not survive a redirection that fails, and another connection may
	# forget the same script just now.
	true >"$d/ok" 2>/dev/null
	alive "$d/sup" && { read -r p <"$d/dd"; } 2>/dev/null && kill "$p" 2>/dev/null
	rm -rf "$d" "$d".* 2>/dev/null || rm -rf "$d" "$d".*
	rmdir "${d%/*}" 2>/dev/null
}

# The spool cannot be written: flag it (a rename needs no room) and end the script, whose output would be lost. A dd that
# was killed (code $1) is no full disk; its death counts as the supervisor's.
broken() {
	[ -s "$d/ok" ] || exec cat >/dev/null
	[ "$1" -gt 128 ] || mv "$d/ok" "$d/full"
	stop 0
	[ "$1" -le 128 ] || { read -r p _ <"$d/sup" && kill -9 "$p"; }
}

# Reads the pipe (stdin) into segments. Each dd takes what is there (at most 64 KiB a read) and writes it at once; its
# closing report tells how much that was, so no other process has to count. At 64 MiB not yet acknowledged it waits,
# as a plain connection would.
copy() {
	LC_ALL=C
	export LC_ALL
	o=0 a=0
	while :; do
		while [ $((o - ${a:-0})) -ge 67108864 ] && [ -s "$d/ok" ]; do
			nap .04
			{ read -r a <"$d/ack"; } 2>/dev/null
		done
		s=$(
			read -r i _ </proc/self/stat
			echo "$i" >"$d/dd"
			exec dd bs=65536 count=256 2>&1 >>"$d/o.$o"
		)
		c=$?
		# Done with: whatever still comes is a background child's; it must neither block nor die of it.
		[ -s "$d/ok" ] || exec cat >/dev/null
		# GNU dd warns of short reads first, in bytes too; Debian's busybox tells no bytes at all.
		b=${s##*records out} b=${b%% bytes*} b=${b##*[!0-9]} r=${s%% records in*} r=${r##*[!0-9+]}
		if [ $c -ne 0 ] || [ -z "$r" ]; then
			broken $c
			return
		fi
		[ $((${r%+*} + ${r#*+})) -eq 256 ] || return
		b=$((o + ${b:-$(wc -c <"$d/o.$o")}))
		# In this order: a follower that sees n.N finds all of the segment and the next one.
		if ! { : >"$d/o.$b" && frame "next $b" >>"$d/o.$o" && echo "$b" >"$d/n.$o"; } 2>/dev/null; then
			broken 1
			return
		fi
		o=$b
	done
}

# Runs a command that writes to the connection, noted where the next follower finds it; $1 is the segment that it waits
# for more of, or -1. It reads descriptor 4: a command behind "&" has lost its stdin, unless told here. A bare cat is
# known for ours by its environment.
emit() {
	c=$1
	shift
	n=$n "$@" <&4 2>/dev/null &
	echo "$! $c" >"$d/tail"
	# The receipt may have come before that line was written.
	b=
	{ read -r b <"$d/ack"; } 2>/dev/null
	[ "$c" -lt 0 ] || [ "${b:-0}" -le "$c" ] || kill $! 2>/dev/null
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
		if { read -r u <"$d/n.$s"; } 2>/dev/null; then
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
				{ read -r b <"$d/ack"; } 2>/dev/null
				[ "${b:-0}" -le "$s" ] || until [ -s "$d/n.$s" ] || [ -e "$d/full" ] || ! alive "$d/sup"; do nap .04; done
				{ read -r s <"$d/n.$s"; } 2>/dev/null || return $c
				z=1
			fi
		else
			# Any other tail looks once a second at best. The descriptor keeps the place between two cats.
			exec 4<"$d/o.$s"
			dd bs=1 skip=$((z - 1)) count=0 <&4 2>/dev/null
			while :; do
				u='' m=''
				{ read -r u <"$d/n.$s"; } 2>/dev/null
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
		p='' q=''
		{ read -r p q <"$d/$i"; } 2>/dev/null
		[ $i = ctl ] || q=
		for f in $p $q; do
			grep -q "$5" "/proc/$f/cmdline" "/proc/$f/environ" 2>/dev/null && kill -9 "$f" 2>/dev/null
		done
	done
}

# Ends this connection's follower h, and what it runs, which may be another's by now.
quiet() {
	p=
	{ read -r p _ <"$d/tail"; } 2>/dev/null
	proc "/proc/$p/stat" && [ "$r" = "$h" ] || p=
	# shellcheck disable=SC2086
	kill "$h" $p 2>/dev/null
}

# Holds one connection: starts the follower, then takes orders until stdin ends. Where the follower was disturbed the
# connection ends, and the driver comes again.
control() {
	retire "$@"
	read -r i _ </proc/self/stat
	echo "$i" >"$d/ctl"
	frame "open $6"
	{
		follow "$6" || kill -9 "$i"
		m=
		{ read -r m <"$d/mem"; } 2>/dev/null && kills "$m"
		if [ -e "$d/full" ]; then frame "full $d"; else frame "gone ${m:-0}"; fi
	} </dev/null &
	h=$! j=
	echo "$i $h" >"$d/ctl"
	while read -r c a; do
		case $c in
		ack)
			b=
			{ read -r b <"$d/ack"; } 2>/dev/null
			echo "$a" >"$d/ack"
			# What the receipt before this one covered is surely behind the follower.
			for u in "$d"/n.*; do
				{ read -r t <"$u"; } 2>/dev/null && [ "$t" -le "${b:-0}" ] && rm -f "$u" "$d/o.${u##*/n.}"
			done
			# After the receipt is noted: whoever begins to wait for more of its segment now looks there.
			{ read -r p q <"$d/tail"; } 2>/dev/null && [ "$q" -ge 0 ] && [ "$q" -lt "$a" ] && kill "$p" 2>/dev/null
			;;
		cancel)
			stop 10 &
			j=$!
			;;
		kill)
			# A stop under way sees this and insists.
			true >"$d/kill"
			[ -n "$j" ] || { stop 0 & j=$!; }
			;;
		done | drop)
			quiet
			[ "$c" != drop ] || stop 0
			# The stage is over when its processes are: the next one must not run beside them.
			[ -z "$j" ] || wait "$j"
			forget
			frame forgotten
			exit 0
			;;
		esac
	done
	quiet
	exit 0
}

# Makes the directory (of many racing starts one wins) and what must stand before anybody follows.
claim() {
	mkdir -m 700 "$d" || { [ ! -d "$d" ] || echo won; return 1; }
	mkfifo -m 600 "$d/p" && proc "/proc/$$/stat" && true >"$d/o.0" && echo 1 >"$d/ok" && echo "$f $t" >"$d/sup"
}

# Runs script $1 by $2 (setsid), its output through the pipe; the end marker takes the same way. The shell's own
# remarks ("Killed") are no output of the script's. Ends when all of it is in the spool. A prelude is read by a shell of
# its own in the script's session, so that nothing here (PATH, IFS, libraries) is what it says.
supervise() {
	for b in bash sh; do
		for s in /usr/local/bin /usr/bin /bin; do [ -x $s/$b ] && break 2; done
		s=/busybox
	done
	b=$s/$b
	# An image may have its shell anywhere on PATH.
	[ -x "$b" ] || b=$(command -v sh)
	# Braces: on a bare function dash keeps the old descriptors, and somebody waits for this one to close.
	{ copy; } <"$d/p" >/dev/null 2>&1 &
	[ "$2" ] || echo " $! $h " >"$d/nosid"
	exec </dev/null >"$d/p" 2>/dev/null
	kills 0
	echo "$m" >"$d/mem"
	# In a child of its own: dash redirects itself for a plain command, and its remark would go the script's way.
	if [ -e "$1.e" ]; then
		# shellcheck disable=SC2016
		(exec $2 sh -c '. "$0" && exec "$@" 2>&1' "$1.e" "$b" "$1")
	else
		(exec $2 "$b" "$1" 2>&1)
	fi
	c=$?
	kills "$m"
	frame "end $c $m"
	exec >/dev/null
	wait
}

d=
for b in /var/tmp /tmp "$HOME"; do
	[ -d "$b/.gad-$k/$n" ] && d=$b/.gad-$k/$n && break
done

case $2 in
start)
	z=$(($6 + ${7:-0}))
	if [ -z "$d" ]; then
		for b in /var/tmp /tmp "$HOME"; do
			b=$b/.gad-$k
			[ -d "$b" ] || mkdir -m 700 "$b" 2>/dev/null
			[ -O "$b" ] && [ ! -h "$b" ] && [ -w "$b" ] && break
		done
		# A script whose driver was killed must not run on beside the next one.
		for d in "$b"/*/sup; do
			d=${d%/sup}
			[ ! -d "$d" ] || [ "$d" = "$b/$n" ] || { stop 2 && forget; } 2>/dev/null
		done
		d=$b/$n w=$b/$n.$$ c=0
		# Whoever forgets the script before takes the directory away once it is empty, also between two lines of this.
		until { [ -d "$b" ] || mkdir -m 700 "$b"; } 2>/dev/null && (umask 077 && true >"$w") 2>/dev/null || [ $c -eq 9 ]; do
			c=$((c + 1))
		done
		if ! e=$( (umask 077 && exec head -c "$z" >"$w") 2>&1); then
			rm -f "$w"
			frame "fail $b: ${e##*: }"
			exit 1
		fi
		# Cut off on its way: the driver sends it again.
		if [ "$(wc -c <"$w")" -ne "$z" ]; then
			rm -f "$w"
			exit 1
		fi
		# Taken apart here, since a head may read more from a pipe than it was told to; dd cuts the file off.
		if [ "$7" ] && ! e=$( (umask 077 && tail -c "$7" "$w" >"$w.e" && dd if=/dev/null of="$w" bs=1 seek="$6") 2>&1); then
			rm -f "$w" "$w.e"
			frame "fail $b: ${e##*: }"
			exit 1
		fi
		if command -v setsid >/dev/null 2>&1; then
			# Twice: the second is a session leader, so it forks. No "&": dash and busybox would leave SIGINT ignored
			# for ever. The supervisor closes this stdout when its directory stands.
			e=$(setsid setsid sh -c "$1" gad "$1" sup "$k" "$4" "$5" "$w")
		elif e=$(claim 2>&1); then
			exec 3<&0
			{ control "$1" "$2" "$3" "$4" "$5" 0; } <&3 3<&- &
			h=$!
			exec 3<&-
			supervise "$w" ''
			exit 0
		fi
		case $e in
		'') ;;
		*won) rm -f "$w" "$w.e" ;;
		*)
			rm -rf "$d" "$w" "$w.e"
			frame "fail $b: ${e##*: }"
			exit 1
			;;
		esac
		c=0
		until [ -s "$d/sup" ] || [ $c -gt 250 ]; do
			nap .04
			c=$((c + 1))
		done
	else
		# Sent again, though the first took effect: none of it is an order.
		head -c "$z" >/dev/null
	fi
	control "$1" "$2" "$3" "$4" "$5" 0
	;;
follow)
	if [ -z "$d" ]; then
		frame gone
		exit 1
	fi
	control "$@"
	;;
sup)
	d=${6%/*}/$n
	exec 2>&1
	claim && supervise "$6" setsid
	;;
esac
